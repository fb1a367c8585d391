"""Which GPUs a study uses. Here is none: PyTorch's answers are made up, the process that asks for a card's is real."""

import os
from types import SimpleNamespace

import pytest
import torch

from autopeft.common.exceptions import SpecError
from autopeft.models import cards
from autopeft.models.cards import VISIBLE, Card, chosen, visible_names
from tests.study.test_file import MINIMAL, spec

GIB = 2**30


@pytest.mark.parametrize(
    ("setting", "count", "names"),
    [
        (None, 0, []),
        (None, 3, ["0", "1", "2"]),
        ("", 0, []),
        ("2", 1, ["2"]),
        (" 3 , 1", 2, ["3", "1"]),
        ("0,7,1", 1, ["0"]),  # CUDA stops at the first that is not there
        ("GPU-8932f937,GPU-0b1c", 2, ["GPU-8932f937", "GPU-0b1c"]),
        ("MIG-20f1,MIG-9c44", 1, ["MIG-20f1", "MIG-9c44"]),
        ("MIG-GPU-8932f937/1/0,MIG-GPU-8932f937/2/0", 1, ["MIG-GPU-8932f937/1/0", "MIG-GPU-8932f937/2/0"]),
        ("MIG-20f1,-1,MIG-9c44", 1, ["MIG-20f1"]),
        ("MIG-20f1", 0, []),
    ],
)
def test_a_process_sees_one_of_the_gpus_that_this_one_sees(setting, count, names):
    assert visible_names(setting, count) == names


@pytest.fixture
def machine(monkeypatch):
    """Lets PyTorch find GPUs of these sizes, and says which one it was made to use."""

    def of(*sizes: int, visible: str | None = None) -> list[int]:
        used: list[int] = []
        found = [SimpleNamespace(name=f"Made-up {size}", total_memory=size * GIB) for size in sizes]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(sizes))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(sizes))
        monkeypatch.setattr(torch.cuda, "get_device_properties", found.__getitem__)
        monkeypatch.setattr(torch.cuda, "set_device", used.append)
        monkeypatch.setattr(cards, "os", SimpleNamespace(environ={VISIBLE: visible} if visible is not None else {}))
        return used

    return of


def search(tmp_path, settings: str, more: str = ""):
    return spec(tmp_path, MINIMAL.replace("[data]", f"[search]\n{settings}\n[data]") + more)


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ("", []),  # one worker, as ever: PyTorch decides
        ("workers = 1", []),
        ("workers = 2", [1, 0, 2]),
        ('workers = "auto"', [1, 0, 2]),
        ("devices = [2]", [2]),
        ("devices = [2, 1]\nworkers = 5", [1, 2]),
    ],
)
def test_the_largest_gpu_comes_first_and_is_the_one_of_the_studys_process(tmp_path, machine, settings, places):
    used = machine(24, 80, 24)
    found = chosen(search(tmp_path, settings))
    assert [card.place for card in found] == places
    assert [card.visible for card in found] == [str(place) for place in places]
    if found:
        cards.use(found[0])
        assert used == places[:1]
        assert str(found[0]).startswith(f"GPU {places[0]} (Made-up {[24, 80, 24][places[0]]}, ")


def test_each_worker_is_given_the_name_that_the_user_gave(tmp_path, machine):
    machine(24, 24, visible="GPU-5e,GPU-1a")
    assert [card.visible for card in chosen(search(tmp_path, "devices = [1, 0]"))] == ["GPU-1a", "GPU-5e"]


@pytest.mark.parametrize(
    ("sizes", "visible", "devices", "words"),
    [
        ((), None, "[0, 2]", r"must be indices of GPUs, but are \[0, 2\], and PyTorch finds no GPU here; remove"),
        ((), "", "[0]", r"finds no GPU here \(CUDA_VISIBLE_DEVICES is ''\)"),
        ((24,), None, "[1]", r"visible GPUs, but are \[1\], and there is 1 GPU, counted from 0; name others"),
        ((24, 24), "3,1", "[0, 3]", r"there are 2 GPUs, counted from 0 \(CUDA_VISIBLE_DEVICES is '3,1'\)"),
        ((24,), "MIG-a,MIG-b", "[1]", r"must contain 0 where CUDA_VISIBLE_DEVICES names parts of GPUs"),
    ],
)
def test_a_gpu_that_is_not_here_is_refused(tmp_path, machine, sizes, visible, devices, words):
    machine(*sizes, visible=visible)
    with pytest.raises(SpecError, match=words):
        chosen(search(tmp_path, f"devices = {devices}"))


def test_on_a_cpu_auto_means_no_gpu_and_one_that_is_named_is_refused(tmp_path):
    assert chosen(search(tmp_path, 'workers = "auto"')) == ()
    with pytest.raises(SpecError, match="PyTorch finds no GPU here"):
        chosen(search(tmp_path, "devices = [0]"))


@pytest.mark.exhaustive
def test_a_part_of_a_gpu_that_only_another_process_sees_is_asked_for_there(tmp_path, machine):
    machine(24, visible="MIG-a,MIG-b")
    cards.os.environ.update({name: value for name, value in os.environ.items() if name != VISIBLE})
    with pytest.raises(SpecError, match=r"CUDA_VISIBLE_DEVICES must name GPUs that can be used, but MIG-b cannot"):
        chosen(search(tmp_path, 'workers = "auto"'))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("devices = []", "a list with at least one entry"),
        ("devices = [-1]", "at least 0"),
        ("devices = [true]", "whole number"),
        ("devices = [0, 1, 0]", r"`devices` must name each GPU once, but is \[0, 1, 0\]"),
        ("devices = [0, 1]\nworkers = 1", "`workers` must be at least 2, the number of `devices`, but is 1"),
    ],
)
def test_devices_that_make_no_sense_are_refused(tmp_path, settings, words):
    with pytest.raises(SpecError, match=words):
        search(tmp_path, settings)


def test_with_devices_the_default_is_one_worker_for_each(tmp_path):
    assert search(tmp_path, "devices = [0, 2]").search.workers == "auto"
    assert search(tmp_path, "devices = [0, 2]\nworkers = 4").search.workers == 4
    assert search(tmp_path, "").search.workers == 1


def test_a_card_is_named_as_people_know_it():
    assert str(Card(2, "GPU-1a", "NVIDIA L4", 24 * GIB)) == "GPU 2 (NVIDIA L4, 24.0 GiB)"
