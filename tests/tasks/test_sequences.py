"""Rows of several sequences side by side: layers that run once, packed folds, memory and small batches."""

import copy

import numpy as np
import pytest
import torch

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory.peak import measure
from autopeft.common.seeds import seeded
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.contract import PeftMethod
from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from autopeft.models.modes import train_mode
from autopeft.tasks.registry import find_task
from autopeft.testing.task_case import TaskCase, families_of
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.learner import Learner, evaluate
from autopeft.training.packing import pack
from autopeft.training.packing_check import packable
from autopeft.training.step import backward
from autopeft.training.trunk_cache import Trunk
from tests.conftest import few
from tests.models.test_base import METHODS
from tests.training.test_learner import CPU

TASK = find_task("multiple-choice")
FAMILIES = [*families_of(TASK)]
PACKED = [
    name for name, method in METHODS.items() if name != "prompt_tuning" and type(method).callback is PeftMethod.callback
]


NOT_PACKED = {("bitfit", "deberta-v2")}
"""Their folds take turns, which only costs time. BitFit's biases turn positions, which all rows of DeBERTa share."""


@pytest.fixture(params=few(FAMILIES, "bert"))
def case(request):
    return TaskCase(TASK, request.param)


def base_of(case) -> BaseModel:
    module = copy.deepcopy(case.model).requires_grad_(False)
    return BaseModel(module, None, describe(module, TASK.kind, TASK.peft_task_type))


def candidate_of(name, base, **params):
    part = CandidateSpace.build([METHODS[name]], base.spec, {name: params} if params else {}, ())[name]
    return part.default()


def layers_of(case) -> tuple[str, ...]:
    """Where an adapter is put; ALBERT has one stored layer, which runs many times."""
    return ("all",) if case.family == "albert" else ("all", "top_half")


def gradients(model, batch):
    backward(model, batch, TASK, CPU)
    found = {name: parameter.grad.detach().clone() for name, parameter in trainable(model).items()}
    model.zero_grad()
    return found


def test_layers_below_all_that_is_trained_run_once(case, tmp_path):
    base = base_of(case)
    candidate = candidate_of("adapter", base, layers=layers_of(case)[-1])
    whole, short = (attach(base, METHODS["adapter"], candidate.params) for _ in range(2))
    for model in (whole, short):
        for index, parameter in enumerate(trainable(model).values()):
            generator = torch.Generator().manual_seed(index)
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    trunk = Trunk(base, case.task, case.data, CPU, tmp_path / "trunk")
    data, make_whole = trunk.prepare("adapter", short)
    if not trunk.level("adapter", short):
        assert case.family == "albert"
        return
    many, places = case.data.sequences, int(case.data.lengths.sum())
    assert many == 4
    assert data.states.values.shape == (places, many, base.spec.hidden_size)
    longest = int(case.data.lengths[[0, 5]].max())
    assert data.batch([0, 5])["trunk_states"].shape == (2, longest, many, base.spec.hidden_size)
    assert trunk.shape(2) == (2, int(case.data.lengths.max()), many, base.spec.hidden_size)
    rows = case.data.everything
    expected, found = (
        evaluate(model.eval(), own, [rows], case.task, CPU)[0] for model, own in ((whole, case.data), (short, data))
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    of_whole = gradients(whole, Batch.of(case.data, [rows], "cpu"))
    of_short = gradients(short, Batch.of(data, [rows], "cpu"))
    assert {*of_whole} == {*of_short}
    for name, gradient in of_whole.items():
        torch.testing.assert_close(of_short[name], gradient, atol=1e-5, rtol=1e-4)
    make_whole()
    np.testing.assert_allclose(evaluate(short, case.data, [rows], case.task, CPU)[0], expected, atol=1e-5)


def test_memory_is_that_of_all_sequences_cut_or_whole(case, tmp_path):
    base = base_of(case)
    rows = len(case.data)
    for layers in layers_of(case):
        candidate = candidate_of("adapter", base, layers=layers)
        trunk = Trunk(base, case.task, case.data, CPU, tmp_path / layers)
        predicted = CostEstimator(base, case.task, CPU, case.data, trunk=trunk).predict(candidate, Execution(rows)).peak
        model = attach(base, METHODS["adapter"], candidate.params)
        data, _ = trunk.prepare("adapter", model)
        train_mode(model)
        learner = Learner(model, candidate.hyper, rows)
        learner.take_turn()
        batch = Batch.of(data, [np.argsort(data.lengths)], "cpu")
        others = (*batch.tensors.values(), *learner.kept_tensors())
        with seeded(0):
            real = measure(lambda: learner.step([batch], case.task, CPU), model, others=others)  # noqa: B023
        assert predicted == pytest.approx(real, rel=0.06), layers


def test_a_batch_in_small_parts_has_the_gradients_of_the_whole(case):
    model = attach(base := base_of(case), METHODS["lora"], candidate_of("lora", base).params).eval()
    hyper = candidate_of("lora", base).hyper
    rows = np.argsort(case.data.lengths)
    whole = gradients(model, Batch.of(case.data, [rows], "cpu"))
    parts = Learner(model, hyper, len(rows), Execution(5)).load(case.data, [rows], "cpu")
    assert [len(part.tensors["labels"]) for part in parts] == [5, 5, 2]
    assert parts[0].places == 5 * 4 * int(case.data.lengths.max())
    for part in parts:
        backward(model, part, case.task, CPU, part.weight / len(rows))
    for name, parameter in trainable(model).items():
        torch.testing.assert_close(parameter.grad, whole[name], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", few(PACKED, "adapter", "lora", "prefix_tuning"))
def test_folds_are_packed_with_every_method_and_their_memory_is_known(case, name):
    base, method = base_of(case), METHODS[name]
    if not (support := method.supports(base.spec)):
        pytest.skip(support.reason)
    candidate = candidate_of(name, base)
    batch = Batch.of(case.data, [np.arange(0, 4), np.arange(4, 7), np.arange(8, 12)], "cpu")
    sites = packable(
        lambda: attach(base, method, candidate.params).eval(),
        lambda model, some: gradients(model.eval(), some),
        batch,
        torch.float32,
    )
    if sites is None:
        assert (name, case.family) in NOT_PACKED
        return
    estimator = CostEstimator(base, case.task, CPU, case.data, packed={name: sites}, folds=3)
    predicted = estimator.predict(candidate, Execution(4, folds=3)).peak
    model = pack(attach(base, method, candidate.params), 3, sites=sites)
    train_mode(model)
    learner = Learner(model, candidate.hyper, 4, Execution(4, folds=3))
    learner.take_turn()
    longest = np.argsort(case.data.lengths)[-4:]
    batch = Batch.of(case.data, [longest] * 3, "cpu")
    with seeded(0):
        real = measure(
            lambda: learner.step([batch], case.task, CPU),
            model,
            others=(*batch.tensors.values(), *learner.kept_tensors()),
        )
    assert predicted == pytest.approx(real, rel=0.06)


def test_virtual_tokens_are_refused_in_a_sentence(case):
    support = METHODS["prompt_tuning"].supports(base_of(case).spec)
    assert not support
    assert "multiple-choice" in support.reason
