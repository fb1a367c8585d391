"""Saved winners that were damaged or forged: each is refused in a sentence, or predicts what it did before.

Every case is drawn from its number. One that a forger has given the right SHA-256, or that changes nothing but the
name of the base model, may load: nobody can tell it from a winner. It must still end, and without a traceback.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from autopeft.common.locate import portable
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.tensor_file import digest
from autopeft.models.weights_file import OWN_FILES, PEFT_FILES, PEFT_WEIGHTS
from autopeft.search.refit import refit
from autopeft.study.card import CARD, EVIDENCE, Card, Evidence, _digest
from autopeft.study.file import StudySpec
from autopeft.winner import winner
from tests.conftest import autopeft_here, write_tiny_study

if TYPE_CHECKING:
    from pathlib import Path

CASES, QUICK, SECONDS = 300, 15, 10
METHODS = ("lora", "adapter")
LONG = [["a"] * 100_000, [f"label {i}" for i in range(100_000)], {str(i): i for i in range(10_000)}]
VALUES = [
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308),
    *("", "x", "../x", "\0", "a" * 100_000, "(a+)+$", r"(.*\.)*(\w+\.)*x$", "lora", "ia3"),
    *("LORA", "IA3", "XLORA", "PREFIX_TUNING", "4bit", [], [[]], {}, {"a": 1}, {"(a+)+$": 8}),
    *(*LONG, list(range(100_000)), [None], ["no", "maybe", "yes"], ["yes", "no", "maybe"]),
]
MANY = b'{"labels": [' + b'"a",' * 2_000_000 + b'"a"]}'
GARBAGE = [
    *(b"", b"null", b"[]", b"{}", b"NaN", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 400, b"9" * 5_000),
    *(b"\xff\xfe\x00", b"{", b" " * 9_000_000, MANY, bytes(range(256)), b"\x80\x04K\x01."),
]


class HangError(BaseException):
    """A case took too long; nothing that catches exceptions may turn it into a sentence."""


class Trap:
    """What a pickle would do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@dataclass(frozen=True)
class Saved:
    folders: dict[str, Path]
    answers: dict[str, str]
    rows: Path


@pytest.fixture(scope="session")
def saved(tmp_path_factory, tiny_model) -> Saved:
    """A trained winner in peft's format and one in our own, and what each predicts."""
    place = tmp_path_factory.mktemp("winners")
    problem = Problem.from_spec(StudySpec.from_file(write_tiny_study(place, tiny_model)), discover())
    rows = place / "few.csv"
    rows.write_text("text\nw12 w3 w20\nw40 w11\nw0 w1 w2 w50\n")
    folders, answers = {}, {}
    for name in METHODS:
        candidate = problem.space[name].default()
        card = Card(
            base_model=portable("model", place),
            task=problem.task.kind,
            labels=problem.rows.labels,
            max_length=problem.reader.max_length,
            method=name,
            params=dict(candidate.params),
            plugin="autopeft 0.1.0",
            seed=0,
        )
        told = Evidence(
            "tiny", "rows.csv", 48, 12, "accuracy", (0.5, 0.6), 0.5, (0.3, 0.7), 0.4, {name: None}, 4, {}, {}, 9
        )
        folders[name] = place / f"{name}-winner"
        winner.save(refit(problem, candidate), candidate.method, problem.reader, card, folders[name], told)
        answers[name] = predict(folders[name], rows).stdout
        assert answers[name].count("label") == 3
    return Saved(folders, answers, rows)


def predict(folder: Path, rows: Path):
    return autopeft_here("predict", folder, "--input", rows, "--json", cwd=rows.parent)


@contextmanager
def within(seconds: int):
    def ring(*_):
        raise HangError(f"no end in {seconds} seconds")

    earlier = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)


def weights(folder: Path) -> Path:
    return next(folder / name for name in (PEFT_WEIGHTS, *OWN_FILES) if (folder / name).exists())


def read(folder: Path) -> list[Path]:
    """The files that a winner is loaded from."""
    names = (CARD, EVIDENCE, *PEFT_FILES, *OWN_FILES)
    return [folder / name for name in names if (folder / name).exists()]


def flip(folder, draw):
    path = draw.choice(read(folder))
    content = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 5, 50])):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def cut(folder, draw):
    path = draw.choice(read(folder))
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))] if draw.random() < 0.7 else content + b"\0" * 9)


def replace_file(folder, draw):
    path = draw.choice(read(folder))
    path.unlink()
    match draw.randrange(7):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.symlink_to("/dev/zero")
        case 4:
            path.symlink_to("nowhere")
        case 5:
            os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**40)  # with a hole, which takes no room
        case 6:
            pass


def garbage(folder, draw):
    draw.choice(read(folder)).write_bytes(draw.choice(GARBAGE))


def tensors(folder, draw):
    path = weights(folder)
    kept = load_file(path)
    name, other = draw.sample(sorted(kept), 2)
    tensor = kept[name]
    match draw.randrange(12):
        case 0:
            del kept[name]
        case 1:
            kept["extra.weight"] = torch.zeros(3)
        case 2:
            kept[name.replace("e", "a", 1)] = kept.pop(name)
        case 3:
            kept[name] = tensor.flatten()[:1].clone()
        case 4:
            kept[name] = tensor[..., None].clone()
        case 5:
            kept[name] = torch.full_like(tensor, float("nan"))
        case 6:
            tensor.view(-1)[draw.randrange(tensor.numel())] = float(draw.choice(["inf", "-inf", "nan"]))
        case 7:
            kept[name] = tensor.to(draw.choice([torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]))
        case 8:
            kept[name], kept[other] = kept[other], tensor
        case 9:
            kept[name] = tensor * 1e30
        case 10:
            kept[name] = tensor.new_zeros(0)
        case 11:
            kept = {f"t{i}": torch.zeros(1) for i in range(20_000)}
    save_file(kept, path, metadata={"format": "pt"})


def fields(folder, draw):
    path = draw.choice([each for each in read(folder) if each.suffix == ".json"])
    content = json.loads(path.read_text())
    inner = [value for value in content.values() if isinstance(value, dict) and value]
    table = draw.choice([content, content, content, *inner])
    match draw.randrange(6):
        case 0:
            del table[draw.choice(sorted(table))]
        case 1:
            table[draw.choice(["extra", "megatron_config", "layers_pattern", "rank_pattern", "r"])] = draw.choice(
                VALUES
            )
        case _:
            table[draw.choice(sorted(table))] = draw.choice(VALUES)
    path.write_text(json.dumps(content))


def mixture(folder, draw):
    """Files of one winner in the folder of another."""
    (other,) = (each for each in folder.parent.iterdir() if each.name.startswith("other"))
    for path in draw.sample(read(other), draw.choice([1, 1, 2])):
        shutil.copy(path, folder / path.name)


def pickled(folder, draw):
    """A pickle where peft looks for one once there are no safetensors, or under their name."""
    path = weights(folder)
    path.unlink()
    target = folder / "adapter_model.bin" if draw.random() < 0.7 else path
    target.write_bytes(pickle.dumps(Trap(folder / "ran")))


KINDS = (flip, fields, tensors, replace_file, garbage, fields, tensors, cut, mixture, fields, pickled, tensors)


def forge(folder: Path) -> None:
    """Give the card the right SHA-256 of everything, where it can still be read."""
    content = json.loads((folder / CARD).read_text())
    content["digests"] = {path.name: digest(path) for path in read(folder) if path.name not in (CARD, EVIDENCE)}
    content["digests"][CARD] = _digest(content)
    (folder / CARD).write_text(json.dumps(content))


def cases():
    return [pytest.param(case, marks=() if case < QUICK else pytest.mark.fuzz) for case in range(CASES)]


@pytest.mark.parametrize("case", cases())
def test_a_damaged_or_forged_winner_is_refused_or_predicts_the_same(saved, tmp_path, monkeypatch, case):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # the base may now be called anything
    draw = random.Random(case)
    name, other = draw.sample(METHODS, 2)
    folder = tmp_path / "winner"
    shutil.copytree(saved.folders[name], folder)
    shutil.copytree(saved.folders[other], tmp_path / "other")
    before = json.loads((folder / CARD).read_text())
    KINDS[case % len(KINDS)](folder, draw)
    forged = draw.random() < 0.4
    if forged:
        try:
            with within(SECONDS):
                plain = all(path.is_file() and path.stat().st_size < 2**30 for path in read(folder))
                forged = plain and not forge(folder)
        except (ValueError, TypeError, AttributeError, LookupError, OSError, RecursionError):
            forged = False
    with within(SECONDS):
        done = predict(folder, saved.rows)
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "ran").exists(), "a pickle was loaded"
    if done.returncode == 2:
        assert done.stdout == ""
        assert 0 < len(done.stderr) < 2_000
        assert done.stderr.count("\n") <= 30
    elif not forged:
        moved = json.loads((folder / CARD).read_text(encoding="utf-8-sig"))["base_model"] != before["base_model"]
        assert moved or done.stdout == saved.answers[name]
