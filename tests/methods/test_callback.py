"""A method that needs more than AdamW's steps: its callback is each fold's own, and goes on after an interruption."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autopeft import PeftMethod, SearchSpace, TrainingCallback
from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory.peak import measure
from autopeft.data.split import split
from autopeft.execution.packing_choice import ALONE, PackingChoice
from autopeft.execution.problem import Problem
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.models.attach import attach, trainable
from autopeft.models.modes import train_mode
from autopeft.search.refit import refit
from autopeft.study.file import StudySpec
from autopeft.testing.tiny import blank_rows
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.cross_validation import cross_validate
from autopeft.training.learner import Learner
from autopeft.training.setup import Setup
from tests.tiny_models import tiny_base
from tests.training.test_learner import CPU, HYPER, TASK, rows

DATA = rows()
FOLDS = split(len(DATA), DATA.truths, None, 3, seed=0)
OPTIONS = {"task": TASK, "metric": "accuracy", "device": CPU, "seed": 5}
RANK = 4


class Factors(nn.Module):
    """A linear map plus `up · diag(mask) · down`."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        like = next(base.parameters())
        self.down = nn.Parameter(0.3 * torch.randn(RANK, base.in_features, device=like.device))
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK, device=like.device))
        self.register_buffer("mask", torch.ones(RANK, device=like.device), persistent=False)

    def forward(self, x):
        return self.base(x) + (x @ self.down.T * self.mask) @ self.up.T


class Schedule(TrainingCallback):
    """Drops the rank whose gradients weighed least so far, once a quarter of the steps; holds `up` small meanwhile."""

    def __init__(self, model):
        self.sites = [module for module in model.modules() if isinstance(module, Factors)]
        self.steps = []

    def start(self, total_steps):
        self.every = max(1, total_steps // 4)
        self.kept = torch.ones(len(self.sites), RANK)
        self.weights = torch.zeros(len(self.sites), RANK)

    def take_turn(self):
        for site, kept in zip(self.sites, self.kept, strict=True):
            site.mask.copy_(kept)

    def loss(self):
        return 1e-2 * sum(site.up.square().sum() for site in self.sites)

    def after_update(self, step):
        self.steps.append(step)
        for site, weights in zip(self.sites, self.weights, strict=True):
            weights.mul_(0.9).add_((site.up * site.up.grad).sum(0))
        if step % self.every == 0 and self.kept[0].sum() > 1:
            least = self.weights.masked_fill(self.kept == 0, torch.inf).argmin(1, keepdim=True)
            self.kept.scatter_(1, least, 0)
            self.take_turn()

    def state(self):
        return {"of.ranks": self.kept, "weights": self.weights}

    def load_state(self, state):
        self.kept.copy_(state["of.ranks"])
        self.weights.copy_(state["weights"])


class Ranked(PeftMethod):
    contract = 1
    name = "ranked"

    def search_space(self, spec=None):
        return SearchSpace({})

    def apply(self, model, params, spec):
        for name in spec.modules("query"):
            model.set_submodule(name, Factors(model.get_submodule(name)))
        return model

    def callback(self, model, params, spec):
        return Schedule(model)


def curve(folds=FOLDS, checkpoint=None, count=9, schedule=Schedule):
    model = attach(tiny_base("bert"), Ranked(), {})
    made = []

    def make():
        made.append(schedule(model) if schedule else None)
        return made[-1]

    steps = cross_validate(
        model, Setup(rows=DATA, folds=folds, **OPTIONS), HYPER, checkpoint=checkpoint, make_callback=make
    )
    rungs = [(rung.scores, rung.loss) for rung in itertools.islice(steps, count)]
    return rungs, made


def test_every_fold_runs_its_own_schedule_on_the_shared_model():
    together, schedules = curve()
    assert [schedule.steps for schedule in schedules] == [list(range(1, len(schedules[0].steps) + 1))] * 3
    assert all(schedule.kept.sum(1).eq(1).all() for schedule in schedules)
    assert len({tuple(schedule.kept.flatten().tolist()) for schedule in schedules}) > 1, "folds drop other ranks"
    alone, _ = curve(FOLDS[:1])
    assert [scores[0] for scores, _ in together] == [scores[0] for scores, _ in alone]
    plain, _ = curve(schedule=None)
    assert [loss for _, loss in plain] != [loss for _, loss in together], "the schedule changes training"


@pytest.mark.parametrize("reached", [1, 2])
def test_an_interrupted_schedule_goes_on_as_if_nothing_happened(tmp_path, reached):
    whole, first = curve()
    checkpoint = Checkpoint(tmp_path / "trial")
    curve(checkpoint=checkpoint, count=reached)
    again, schedules = curve(checkpoint=checkpoint)
    assert again == whole
    assert 0 < len(schedules[0].steps) < len(first[0].steps)
    for schedule, expected in zip(schedules, first, strict=True):
        assert torch.equal(schedule.kept, expected.kept)
        assert torch.equal(schedule.weights, expected.weights)


def test_the_added_loss_counts_once_however_many_parts_a_batch_runs_in():
    found = []
    for micro_batch in (8, 3):
        model = attach(tiny_base("bert"), Ranked(), {})
        with torch.no_grad():
            for parameter in trainable(model).values():
                parameter += 0.05
        learner = Learner(model.eval(), HYPER, 8, Execution(micro_batch), callback=Schedule(model))
        learner.take_turn()
        gradients = {}
        learner.callback.before_update = lambda step, model=model, found=gradients: found.update(
            {name: parameter.grad.clone() for name, parameter in trainable(model).items()}
        )
        learner.step(learner.load(DATA, [np.arange(8)], "cpu"), TASK, CPU)
        found.append(gradients)
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_memory_is_predicted_with_the_added_loss_and_what_the_callback_keeps():
    base = tiny_base("bert")

    class Keeping(Schedule):
        def start(self, total_steps):
            super().start(total_steps)
            self.history = torch.zeros(2**20)

        def after_update(self, step):
            super().after_update(step)
            self.history[step] = float(self.weights.sum())  # a value, which fake tensors do not have

        def state(self):
            return {**super().state(), "history": self.history}

    class Remembering(Ranked):
        def callback(self, model, params, spec):
            return Keeping(model)

    candidate = CandidateSpace.build([Remembering()], base.spec, {}, ())["ranked"].default()
    cost_estimator = CostEstimator(base, TASK, CPU, blank_rows(np.full(64, 24)))
    model = attach(base, candidate.method, candidate.params)
    train_mode(model)
    learner = Learner(model, candidate.hyper, 64, callback=Keeping(model))
    learner.take_turn()
    shapes = cost_estimator.batch_shapes(16)
    batch = Batch({key: torch.ones(shape, dtype=dtype) for key, (shape, dtype) in shapes.items()}, (16,))
    others = (*batch.tensors.values(), *learner.kept_tensors())
    real = measure(lambda: learner.step([batch], TASK, CPU), model, others=others)
    assert cost_estimator(candidate).memory.peak == pytest.approx(real, rel=0.03)
    assert real > 4 * 2**20


def test_folds_with_callbacks_are_not_packed_and_the_refit_has_one_too(tiny_study):
    tiny_study.write_text(tiny_study.read_text().replace('packing = "off"', 'packing = "on"'))
    problem, told = Problem.from_spec(StudySpec.from_file(tiny_study), discover()), []
    candidate = replace(problem.space["lora"].default(), method=Ranked(), params={})
    packer = PackingChoice(problem, told.append)
    for _ in range(2):
        packer.decide(candidate)
    assert packer.settled == {"ranked": ALONE}
    assert len(told) == 1
    assert "callback" in told[0]
    assert problem.cost_estimator(candidate).execution.folds == 1
    model = refit(problem, candidate)
    assert [int(module.mask.sum()) for module in model.modules() if isinstance(module, Factors)] == [1] * 4
