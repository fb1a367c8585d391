"""Layers below all that is trained run once: nothing changes but the time, and where it would, they run as ever."""

import json
import os

import numpy as np
import pytest
import torch

from autopeft.models.attach import attach, trainable
from autopeft.models.device import Device
from autopeft.training import trunk_cache as trunks
from autopeft.training.batch import Batch
from autopeft.training.trunk_cache import Trunk, lowest_trained
from tests.conftest import THREE, autopeft_here
from tests.models.test_base import METHODS, base_of
from tests.tiny_models import FAMILIES
from tests.training.test_learner import CPU, TASK, rows

DATA = rows()
CUT = [family for family in FAMILIES if family not in ("albert", "t5")]


def adapter(base, layers="top_half", placement="pfeiffer"):
    params = METHODS["adapter"].search_space(base.spec).defaults()
    return attach(base, METHODS["adapter"], {**params, "layers": layers, "placement": placement})


def trunk_of(base, folder, **options):
    return Trunk(base, TASK, DATA, options.pop("device", CPU), folder / "trunk", **options)


def test_the_lowest_layer_that_is_touched():
    base = base_of()  # four layers
    expected = {"all": 0, "every_second": 1, "top_half": 2, "top_quarter": 3}
    assert {layers: lowest_trained(adapter(base, layers), base.spec) for layers in expected} == expected
    for name in ("lora", "prefix_tuning"):
        model = attach(base, METHODS[name], METHODS[name].search_space(base.spec).defaults())
        assert lowest_trained(model, base.spec) == 0
    model = base.copy()
    model.requires_grad_(False).classifier.requires_grad_(True)
    assert lowest_trained(model, base.spec) == 3, "the head alone"
    model.get_input_embeddings().weight.requires_grad_(True)
    assert lowest_trained(model, base.spec) == 0
    albert = base_of("albert")
    assert lowest_trained(adapter(albert, "all"), albert.spec) == 0, "one stored layer runs many times"


def gradients(model, data):
    with torch.no_grad():
        for index, parameter in enumerate(trainable(model).values()):
            generator = torch.Generator().manual_seed(index)
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    batch = Batch.of(data, [np.arange(7)], "cpu")
    with CPU.kernels():
        loss = TASK.loss(model.eval()(**TASK.model_inputs(batch.tensors)), batch.tensors)
        loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in trainable(model).items()}


@pytest.mark.parametrize("family", CUT)
@pytest.mark.parametrize("placement", ["pfeiffer", "parallel"])
def test_loss_and_gradients_are_those_of_the_whole_model(family, placement, tmp_path):
    base = base_of(family)
    whole, short = adapter(base, placement=placement), adapter(base, placement=placement)
    trunk = trunk_of(base, tmp_path)
    data, make_whole = trunk.prepare("adapter", short)
    assert trunk.level("adapter", short) == len(base.spec.layers) // 2
    assert data.states.values.shape == (DATA.lengths.sum(), base.spec.hidden_size)
    ran = []
    for index in (0, len(base.spec.layers) - 1):
        linear = next(one.name for one in base.spec.linears if one.layer == index)
        short.get_submodule(linear).register_forward_hook(lambda *_, index=index: ran.append(index))
    expected, found = gradients(whole, DATA), gradients(short, data)
    assert ran == [len(base.spec.layers) - 1], "the lowest layer is skipped, the highest is not"
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-5), name
    make_whole()
    assert gradients(short, DATA)[0] == pytest.approx(gradients(whole, DATA)[0], rel=1e-5)


def test_states_are_worked_out_once_for_each_level(tmp_path, monkeypatch):
    base = base_of()
    trunk = trunk_of(base, tmp_path)
    runs = []
    run = trunk._run
    monkeypatch.setattr(trunk, "_run", lambda *given: runs.append(1) or run(*given))
    first, _ = trunk.prepare("adapter", adapter(base))
    counted = len(runs)
    assert counted > 2
    second, _ = trunk.prepare("adapter", adapter(base))
    assert second.states.values is first.states.values
    assert len(runs) == counted


def test_where_memory_runs_out_it_takes_fewer_rows_at_a_time(tmp_path, monkeypatch):
    base = base_of()
    expected = trunk_of(base, tmp_path).prepare("adapter", adapter(base))[0].states.values
    trunk = trunk_of(base, tmp_path)
    run, sizes = trunk._run, []

    def scarce(model, rows, *rest):
        sizes.append(len(rows))
        if len(rows) > 8:
            raise torch.OutOfMemoryError("planted")
        return run(model, rows, *rest)

    monkeypatch.setattr(trunk, "_run", scarce)
    found = trunk.prepare("adapter", adapter(base))[0].states.values
    assert np.allclose(found, expected, atol=1e-5)
    assert {32, 16, 8} <= set(sizes)


def test_all_levels_together_keep_to_the_share_of_memory(tmp_path, monkeypatch):
    base = base_of()
    trunk = trunk_of(base, tmp_path)
    first = trunk.prepare("adapter", adapter(base))[0].states.values
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(trunks, "MEMORY_SHARE", 1.5 * first.nbytes / memory)
    second = trunk.prepare("adapter", adapter(base, "top_quarter"))[0].states.values
    assert not isinstance(first, np.memmap)
    assert isinstance(second, np.memmap)


def test_large_outputs_go_to_a_file(tmp_path, monkeypatch):
    base = base_of()
    held = trunk_of(base, tmp_path).prepare("adapter", adapter(base))[0]
    monkeypatch.setattr(trunks, "MEMORY_SHARE", 0.0)
    mapped = trunk_of(base, tmp_path).prepare("adapter", adapter(base))[0]
    assert isinstance(mapped.states.values, np.memmap)
    assert not list((tmp_path / "trunk").iterdir())  # without a name, so that it goes with the process
    assert np.array_equal(mapped.states.values, held.states.values)


def test_a_method_that_reaches_below_without_showing_it_is_found_out(tmp_path):
    base = base_of()
    trunk = trunk_of(base, tmp_path)

    def sly():
        model = adapter(base)
        scales = torch.linspace(0.2, 3.0, 32)
        model.get_submodule(base.spec.layers[0]).register_forward_hook(lambda module, args, output: output * scales)
        return model

    model = sly()
    before = gradients(sly(), DATA)
    assert trunk.level("sly", model) == 2
    assert trunk.prepare("sly", model)[0] is DATA
    assert trunk.level("sly", model) == 0
    assert trunk.whole == {"sly"}
    assert gradients(model, DATA)[0] == before[0]
    assert trunk.prepare("adapter", adapter(base))[0].states is not None


def test_it_can_be_turned_off(tmp_path):
    base = base_of()
    assert trunk_of(base, tmp_path, enabled=False).prepare("adapter", adapter(base))[0] is DATA


def test_bfloat16_states_stay_close(tmp_path):
    base = base_of()
    plain = trunk_of(base, tmp_path).prepare("adapter", adapter(base))[0].states.values
    mixed = (
        trunk_of(base, tmp_path, device=Device("cpu", torch.bfloat16))
        .prepare("adapter", adapter(base))[0]
        .states.values
    )
    assert np.abs(mixed - plain).max() < 0.1 * np.abs(plain).max()


@pytest.mark.parametrize("packing", ["on", "off"])
def test_a_study_that_trains_upper_layers_only(tiny_study, packing):
    text = tiny_study.read_text().replace('packing = "off"', f'packing = "{packing}"')
    tiny_study.write_text(
        text.replace(THREE, 'methods = ["adapter"]').replace("trials = 4", 'trials = 2\nadapter.layers = "top_quarter"')
    )
    done = autopeft_here("run", tiny_study, "--json", cwd=tiny_study.parent)
    assert done.returncode == 0, done.stderr
    for record in json.loads(done.stdout)["records"]:
        assert record["measured_memory"] <= record["predicted_memory"] * 1.03
