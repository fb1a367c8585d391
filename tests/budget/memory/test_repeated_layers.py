"""A prediction that runs three of a run of equal layers says what one says that runs them all."""

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory import peak, repeated_layers
from autopeft.budget.memory.allocator import SMALL_SEGMENT
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.needed import ready
from autopeft.methods.registry import discover
from autopeft.models.architecture import describe
from autopeft.models.attach import attach
from autopeft.models.base import BaseModel
from autopeft.models.device import AbsentCard, Device
from autopeft.testing.tiny import blank_rows
from autopeft.training.batch_plan import Execution
from tests.budget.memory.test_peak import TASK
from tests.conftest import few
from tests.tiny_models import tiny, tiny_base

METHODS = {name: ready(method) for name, method in discover().methods.items()}
CPU, LAYERS = Device("cpu", None), 7
PREDICT, RUN = peak.predict, repeated_layers.Run
FAMILIES = ("bert", "llama", "gpt2", "opt", "deberta-v2", "distilbert", "t5")
WAYS = {
    "whole": Execution(16),
    "accumulated": Execution(4),
    "checkpointed": Execution(4, checkpointing=True),
    "packed": Execution(4, folds=3),
}

NOT_PACKED = {(None, "adalora"), (None, "fusion"), ("gpt2", "dora"), ("deberta-v2", "bitfit")}


@functools.cache
def deep(family):
    """A tiny model of seven layers; T5 of as many in each stack."""
    config = copy.deepcopy(tiny(family).config)
    config.num_hidden_layers = LAYERS
    if family == "t5":
        config.num_decoder_layers = LAYERS
    module = AutoModelForSequenceClassification.from_config(config).requires_grad_(False)
    return BaseModel(module, None, describe(module, TASK.kind, TASK.peft_task_type))


@pytest.fixture
def predictions(monkeypatch):
    """Predicts the same thing twice, with layers spared and with none, and says how often sparing was given up."""
    given_up = []

    def watched(run):
        def watching(*args, **kwargs):
            try:
                return run(*args, **kwargs)
            except repeated_layers.LayersDiffer:
                given_up.append(run)
                raise

        return watching

    def both(base, name, execution, autocast=None, params=None, on=CPU):
        part = CandidateSpace.build([METHODS[name]], base.spec, {}, ())[name]
        candidate = part.candidate({**part.own.defaults(), **(params or {})}, part.training.defaults())
        device, packed = replace(on, autocast=autocast), {name: name == "dora"} if execution.folds > 1 else {}
        appraise = CostEstimator(base, TASK, device, blank_rows(np.full(100, 20)), packed=packed, folds=3)
        found = []
        for whole in (False, True):
            monkeypatch.setattr(peak, "predict", functools.partial(PREDICT, whole=whole))
            found.append(appraise.predict(candidate, execution))
        return (*found, len(given_up))

    for name in ("_trace", "_estimate"):
        monkeypatch.setattr(peak, name, watched(getattr(peak, name)))
    return both


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", few(METHODS, "lora"))
@pytest.mark.parametrize("family", few(FAMILIES, "bert"))
def test_three_layers_tell_what_all_of_them_tell(predictions, family, name, way):
    base = deep(family)
    if not METHODS[name].supports(base.spec):
        pytest.skip("the method does not support it")
    if way == "packed" and {(None, name), (family, name)} & NOT_PACKED:
        pytest.skip("trained fold by fold, as `PackingChoice` finds out")
    spared, whole, _ = predictions(base, name, WAYS[way])
    assert spared == whole


@pytest.mark.parametrize("name", few(METHODS, "lora"))
@pytest.mark.parametrize("way", WAYS)
def test_so_they_do_where_autocast_keeps_rounded_copies(predictions, name, way):
    if way == "packed" and (None, name) in NOT_PACKED:
        pytest.skip("trained fold by fold, as `PackingChoice` finds out")
    spared, whole, _ = predictions(deep("bert"), name, WAYS[way], torch.bfloat16)
    assert spared == whole


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fake tensors would be on the device")
@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", few(METHODS, "lora"))
@pytest.mark.parametrize("way", WAYS)
def test_their_blocks_lie_where_those_of_all_of_them_do(predictions, name, way, autocast):
    if way == "packed" and (None, name) in NOT_PACKED:
        pytest.skip("trained fold by fold, as `PackingChoice` finds out")
    spared, whole, _ = predictions(deep("bert"), name, WAYS[way], autocast, on=AbsentCard("cuda", None))
    assert spared.allocated == whole.allocated
    assert abs(spared.segments - whole.segments) <= SMALL_SEGMENT  # small blocks of several folds may lie otherwise


@pytest.mark.parametrize("name", few(METHODS, "lora", "prefix_tuning"))
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_layers_are_spared_with_every_method(predictions, family, name):
    base = deep(family)
    if not METHODS[name].supports(base.spec):
        pytest.skip("the method does not support it")
    assert predictions(base, name, Execution(16))[2] == 0


def test_an_add_on_in_the_upper_layers_leaves_two_runs(predictions, monkeypatch):
    made = []
    monkeypatch.setattr(repeated_layers, "Run", lambda *args: made.append(RUN(*args)) or made[-1])
    base = deep("bert")
    spared, whole, given_up = predictions(base, "adapter", Execution(16), params={"layers": "top_half"})
    assert spared == whole
    assert given_up == 0
    assert [len(run.skipped) for run in made] == [1]


def test_a_layer_with_anything_of_its_own_is_unlike_the_others():
    base = deep("bert")
    model = attach(base, METHODS["lora"], METHODS["lora"].search_space(base.spec).defaults(), meta=True)
    layers = [module for module in model.modules() if hasattr(module, repeated_layers.LAYER)]
    assert len({repr(repeated_layers.likeness(layer)) for layer in layers}) == 1
    layers[3].attention.self.scale_twice = True
    layers[4].output.dense.more = nn.Linear(32, 2, device="meta")
    assert len({repr(repeated_layers.likeness(layer)) for layer in layers}) == 3


def test_what_only_the_trace_shows_is_noticed(predictions, monkeypatch):
    """A hook that nothing of a layer tells of: the last layer makes more than the second."""
    base = deep("bert")
    plain = attach

    def hooked(*args, **kwargs):
        model = plain(*args, **kwargs)
        last = [module for module in model.modules() if hasattr(module, repeated_layers.LAYER)][-1]
        whole = last.attention.forward
        for layer in (module for module in model.modules() if hasattr(module, repeated_layers.LAYER)):
            layer.attention.forward = layer.attention.forward  # of all, so that they look alike
        last.attention.forward = lambda *a, **k: (torch.zeros(2**20).add(1), whole(*a, **k))[1]
        return model

    monkeypatch.setattr("autopeft.budget.cost_estimator.attach", hooked)
    spared, whole, given_up = predictions(base, "lora", Execution(16))
    assert given_up == 1
    assert spared == whole


def test_the_layers_are_as_they_were_when_a_step_fails():
    base = tiny_base("bert")
    model = attach(base, METHODS["lora"], METHODS["lora"].search_space(base.spec).defaults(), meta=True)
    layers = [module for module in model.modules() if hasattr(module, repeated_layers.LAYER)]

    def make_step(_):
        def step(_):
            assert all("forward" in vars(layer) for layer in layers)
            raise RuntimeError("planted")

        return step

    with pytest.raises(RuntimeError, match="planted"):
        peak.predict(model, make_step, {"input_ids": (2, 4)})
    assert not any("forward" in vars(layer) for layer in layers)
