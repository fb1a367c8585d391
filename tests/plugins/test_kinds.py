"""Every method serves every kind of task that it supports, on every family of models that the kind has.

The contract of methods is tested on labels of texts and of images (`test_conformance.py`), and kinds of task by
themselves (`tests/tasks/test_task_rules.py`); here the two meet. `make test` tries a few pairs on one family,
`make exhaustive` all of them.
"""

import copy
from itertools import product

import numpy as np
import pytest
import torch

from autopeft.budget.memory import peak
from autopeft.common.seeds import seeded
from autopeft.methods.contract import PeftMethod
from autopeft.methods.needed import ready
from autopeft.methods.registry import discover
from autopeft.methods.training_space import TRAINING_SPACE, Hyperparameters
from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from autopeft.models.modes import train_mode
from autopeft.tasks.registry import find_task, task_kinds
from autopeft.testing.task_case import CPU, TaskCase, families_of
from autopeft.testing.task_rules import answers_before_and_after_saving
from autopeft.training.batch import Batch
from autopeft.training.learner import Learner, make_optimizer
from autopeft.training.packing_check import packable
from autopeft.training.step import backward, training_step

METHODS = {name: ready(method) for name, method in discover().methods.items()}
STARTS_AS_NOTHING = {"adalora", "adapter", "bitfit", "dora", "ia3", "lora", "vera"}
"""Methods whose add-on changes no output before it is trained."""

NEAR = 0.06
"""Relative difference of predicted and measured memory."""

NOT_PACKED = {("bitfit", "deberta-v2")}
"""Methods whose folds train one after the other on a family, of some kinds at least, as `packable` finds out."""

QUICK = {("multi-label-classification", "lora"), ("multiple-choice", "prefix_tuning"), ("question-answering", "lora"),
         ("token-classification", "prefix_tuning"), ("image-classification", "adapter"),
         ("prompt-classification", "bitfit"), ("causal-lm", "lora"), ("seq2seq", "prefix_tuning")}  # fmt: skip
"""Kinds and methods that `make test` tries, on the first family of the kind."""


def pairs():
    for kind, name in product(sorted(task_kinds()), METHODS):
        for place, family in enumerate(families_of(find_task(kind))):
            quick = place == 0 and (kind, name) in QUICK
            yield pytest.param(kind, family, name, marks=() if quick else pytest.mark.exhaustive)


def model_of(case, method):
    """The case's model with the method on, as a trial has it; and its description."""
    spec = describe(case.model, case.task.kind, case.task.peft_task_type, new_head=case.task.new_head)
    if not (answer := method.supports(spec)):
        pytest.skip(answer.reason)
    base = BaseModel(copy.deepcopy(case.model).requires_grad_(False), None, spec)
    return base, method.search_space(spec).defaults()


@pytest.mark.parametrize(("kind", "family", "name"), pairs())
def test_a_method_serves_a_kind(kind, family, name):
    case, method = TaskCase(find_task(kind), family), METHODS[name]
    base, params = model_of(case, method)
    all_of_a_batch_reaches_the_model(case, method, base, params)
    it_learns_within_what_memory_was_predicted(case, method, base, params)
    its_folds_pack(case, method, base, params)
    it_answers_the_same_once_saved(case, method)


def all_of_a_batch_reaches_the_model(case, method, base, params):
    """A wrapper may drop what it does not know: with an add-on that does nothing yet the outputs are the base's."""
    if method.name not in STARTS_AS_NOTHING:
        return
    inputs = case.task.model_inputs(case.data.batch(case.data.everything))
    with CPU.kernels(), torch.no_grad():
        expected, found = base.module.eval()(**inputs)[0], attach(base, method, params).eval()(**inputs)[0]
    assert torch.allclose(found, expected, atol=1e-4), float((found - expected).abs().max())


def it_learns_within_what_memory_was_predicted(case, method, base, params):
    rows = len(case.data)
    hyper = Hyperparameters(**{**TRAINING_SPACE.defaults(), "batch_size": rows, "learning_rate": 1e-2})
    callback = method.callback(attach(base, method, params, meta=True), params, base.spec)
    if callback is None:  # what a callback holds is weighed in the conformance of methods

        def make_step(module):
            optimizer = make_optimizer(module, hyper)
            return lambda tensors: training_step(module, optimizer, [Batch(tensors, (rows,))], case.task, CPU)

        light = train_mode_of(attach(base, method, params, meta=True))
        predicted = peak.predict(light, make_step, case.data.largest(rows), "cpu").peak
    model = attach(base, method, params)
    before = {key: value.detach().clone() for key, value in trainable(model).items()}
    batch = Batch.of(case.data, [np.argsort(case.data.lengths)], "cpu")
    learner = Learner(train_mode_of(model), hyper, rows * 4, callback=method.callback(model, params, base.spec))
    learner.take_turn()
    with seeded(0):
        real = peak.measure(lambda: learner.step([batch], case.task, CPU), model, others=[*batch.tensors.values()])
        losses = [float(learner.step([batch], case.task, CPU)) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert any(not torch.equal(value, before[key]) for key, value in trainable(model).items())
    if callback is None:
        assert predicted == pytest.approx(real, rel=NEAR)


def train_mode_of(model):
    train_mode(model)
    return model


def its_folds_pack(case, method, base, params):
    if type(method).callback is not PeftMethod.callback:
        return

    def gradients(model, batch):
        backward(model.eval(), batch, case.task, CPU)
        found = {key: p.grad.detach() for key, p in trainable(model).items() if p.grad is not None}
        model.zero_grad()
        return found

    batch = Batch.of(case.data, [np.arange(2), np.arange(2, 5)], "cpu")
    packed = packable(lambda: attach(base, method, params), gradients, batch, torch.float32)
    assert packed is not None or (method.name, case.family) in NOT_PACKED


def it_answers_the_same_once_saved(case, method):
    @torch.no_grad()
    def train(model):
        for parameter in trainable(model).values():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))

    expected, found = answers_before_and_after_saving(case, method, train)
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)
