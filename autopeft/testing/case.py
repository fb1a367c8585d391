"""One method on one tiny model, with results that several rules need, computed once."""

from __future__ import annotations

import copy
import functools
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.common.seeds import seeded
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.needed import ready
from autopeft.methods.training_space import Hyperparameters
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from autopeft.models.device import Device
from autopeft.models.modes import train_mode
from autopeft.tasks.registry import find_task
from autopeft.testing.tiny import rows_for, tiny_base
from autopeft.training.batch import Batch
from autopeft.training.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from autopeft.common.params import Params
    from autopeft.methods.candidate import MethodSpace
    from autopeft.methods.contract import PeftMethod
    from autopeft.methods.search_space import SearchSpace

TASK = find_task("text-classification")
CPU = Device("cpu", None)
ROWS = 12
"""Rows of a batch."""

STEPS = 4
"""Training steps for most rules."""

MOST_CORNERS = 2000
"""Most corners of a space that are looked through for the few to try."""


class Case:
    """A method on the tiny model of one family.

    Attributes:
        left_changed: the parts of the process that the method has changed so far, in any call.
    """

    def __init__(self, method: PeftMethod, family: str) -> None:
        self.method, self.family = ready(method), family
        self.left_changed: list[str] = []
        self.data = rows_for(family)
        self.at: Params | None = None  # the params of the latest `attach`, for errors that nobody expected

    @functools.cached_property
    def base(self) -> BaseModel:
        """A copy of the family's model for this case alone."""
        shared = tiny_base(self.family)
        return BaseModel(copy.deepcopy(shared.module), None, shared.spec)

    def restore(self) -> None:
        """Take a new copy of the model if something has written into the last one."""
        pristine = tiny_base(self.family).module.state_dict()
        if not same(self.base.module.state_dict(), pristine):
            del self.base

    @functools.cached_property
    def refusal(self) -> str:
        """Why the method does not support the model; empty if it does, or if supports() fails."""
        with suppress(Exception):  # the rule about supports() reports it
            return str(self.method.supports(self.base.spec).reason)
        return ""

    @functools.cached_property
    def spaceless(self) -> str:
        """Why there are no params to apply the method to this model with; empty if there are."""
        try:
            _ = self.defaults
        except Exception as error:  # a method may raise anything; the rules about its space report it
            return f"not run, because the method has no defaults: {type(error).__name__}: {error}"
        return ""

    @functools.cached_property
    def blocked(self) -> str:
        """Why hardly any rule can test the method on this model; empty if all can."""
        if self.spaceless:
            return self.spaceless
        try:
            self.attach(self.defaults)
        except Exception as error:  # a method may raise anything; the rule about apply() reports it
            return f"not run, because the method cannot be applied: {type(error).__name__}: {error}"
        return ""

    @functools.cached_property
    def space(self) -> SearchSpace:
        """The method's own space on this model, including dimensions that are searched only on request."""
        return self.method.search_space(self.base.spec)

    @functools.cached_property
    def defaults(self) -> Params:
        """The point that the method's author considers proven."""
        return self.candidates.own.defaults()

    @functools.cached_property
    def corners(self) -> list[Params]:
        """The defaults, then a few points that cover every extreme of every dimension, including optional ones."""
        one_changed = [
            self.space.nearest({name: value}) for name in self.space for value in self.space[name].extremes()
        ]
        return covering([self.defaults, *one_changed, *islice(self.space.corners(), MOST_CORNERS)])

    @functools.cached_property
    def candidates(self) -> MethodSpace:
        """The method's part of a study's space."""
        return CandidateSpace.build([self.method], self.base.spec, {}, ())[self.method.name]

    def attach(self, params: Params, *, meta: bool = False, seed: int = 0) -> nn.Module:
        """A model with the add-on on, as a trial has it."""
        self.at = params
        return attach(self.base, self.method, params, meta=meta, seed=seed)

    def learner(self, model: nn.Module, params: Params, steps: int = STEPS) -> Learner:
        """A learner of this many steps, at the highest learning rate that the method allows."""
        rate = max(self.candidates.training["learning_rate"].extremes())
        hyper = Hyperparameters(float(rate), epochs=1, batch_size=ROWS, warmup_ratio=0.0, weight_decay=0.0)
        callback = self.method.callback(model, params, self.base.spec)
        learner = Learner(model, hyper, steps * ROWS, callback=callback)
        learner.take_turn()
        return learner

    def batch(self, number: int = 0) -> Batch:
        """Some rows to train on."""
        rows = np.arange(number * ROWS, (number + 1) * ROWS) % len(self.data)
        return Batch.of(self.data, [rows], "cpu")

    @functools.cached_property
    def trained(self) -> nn.Module:
        """The model from `train`; rules that need a trained model share it."""
        return self.train()

    def train(self) -> nn.Module:
        """A model after a short training at the defaults, as in a fold."""
        model = self.attach(self.defaults)
        learner = self.learner(model, self.defaults)
        with seeded(0):
            train_mode(model)
            for step in range(STEPS):
                learner.step([self.batch(step)], TASK, CPU)
        return model.eval()


@torch.no_grad()
def logits(model: nn.Module, rows: Batch) -> torch.Tensor:
    """`[rows, classes]`, in evaluation mode."""
    with CPU.kernels():
        found: torch.Tensor = model.eval()(**TASK.model_inputs(rows.tensors)).logits
    return found.float()


def of_head(name: str, head: Iterable[str]) -> bool:
    """Whether a parameter of that name belongs to the head, or to a copy of it."""
    return any(f".{part}." in f".{name}." for part in head)


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of what is trained."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether they hold the same tensors, to the bit."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def covering(points: Sequence[Params]) -> list[Params]:
    """The first of the points, and a few more that together have every value that any has; found greedily."""
    pairs = [{(name, repr(value)) for name, value in point.items()} for point in points]
    chosen, missing = [0], set().union(*pairs) - pairs[0]
    while missing:
        best = max(range(len(points)), key=lambda index: len(missing & pairs[index]))
        chosen.append(best)
        missing -= pairs[best]
    return [points[index] for index in chosen]
