"""Decide for each method, once per study, whether its folds train one after the other or packed in one pass."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.common import machine
from autopeft.common.exceptions import in_a_line
from autopeft.common.seeds import derive_seed
from autopeft.methods.contract import PeftMethod
from autopeft.models.attach import attach, trainable
from autopeft.models.modes import train_mode
from autopeft.models.quantization import EIGHT_BITS
from autopeft.training.batch import Batch, bucketed
from autopeft.training.batch_plan import Execution
from autopeft.training.loss_scale import PROBE
from autopeft.training.packing import pack
from autopeft.training.packing_check import packable, seconds_of
from autopeft.training.step import backward

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from autopeft.data.encoded import Encoded
    from autopeft.data.split import Fold
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.models.device import Device
    from autopeft.tasks.contract import Task

WORTH_TRYING = 0.2
"""Least share of a pass that must be start-up cost for packing to be tried: that cost is all it saves."""

LAYER_OVERHEAD = {"cpu": 5e7}
"""Cost of starting a layer's pass, in multiplications by its weights that could be done meanwhile.

30 tokens of a MiniLM's layer (`benchmarks/execution.py`). If that alone settles the question, nothing is timed, and
every run decides the same. There is no value for GPUs, since they differ too much.
"""

WORTH_DOING = 1.2
"""Speed-up from which folds are packed. It is far enough from 1 that the next run of the study decides the same."""

CHECKED_ROWS = (2, 3)
"""Rows of the folds in turn, when gradients are compared: folds of unequal size must not affect each other."""

ALONE = "one after the other"
MODULES, BY_MODULE_GROUP = "packed", "packed by place"


class PackingChoice:
    """Decides how the folds of each method run, and tells the problem's cost estimator.

    Args:
        problem: the study's.
        say: gets a sentence for each method that cannot be packed.
    """

    def __init__(self, problem: Problem, say: Callable[[str], None]) -> None:
        self._problem, self._say = problem, say
        self.settled: dict[str, str] = {}

    def adopt(self, known: Mapping[str, str]) -> None:
        """Take over decisions made elsewhere, method → one of the three ways, for methods not yet decided here."""
        for name, way in known.items():
            if name not in self.settled:
                self._settle(name, way)

    def decide(self, candidate: Candidate) -> bool:
        """Decide for the candidate's method if it is still undecided; returns whether a decision was made."""
        name = candidate.method.name
        if name in self.settled:
            return False
        wanted, cohort = self._problem.spec.validation.packing, self._problem.spec.search.cohort
        measured = wanted == "auto" and cohort in ("auto", 1)  # a cohort that is asked for needs packed folds
        try:
            alone = wanted == "off" or self._problem.parts
            way = ALONE if alone else self._find(candidate, measured=measured)
        except Exception:  # whatever a method raises here, its trial raises and reports too
            return False
        if way:
            self._settle(name, way)
        return bool(way)

    def _settle(self, name: str, way: str) -> None:
        self.settled[name] = way
        if way != ALONE:
            self._problem.packed[name] = way == BY_MODULE_GROUP
            self._problem.cost_estimator.forget(name)

    def _find(self, candidate: Candidate, *, measured: bool) -> str:
        """The way for a method; empty if this candidate is too large for the budget to decide by it."""
        problem, name = self._problem, candidate.method.name
        if type(candidate.method).callback is not PeftMethod.callback:
            self._say(f"The folds of {name} train one after the other: it has a training callback for each.")
            return ALONE
        if problem.spec.model.quantization == EIGHT_BITS:
            self._say(
                f"The folds of {name} train one after the other: in 8 bits all rows of a batch decide which columns "
                "are rounded."
            )
            return ALONE
        whole = self._timing(candidate, candidate.hyper.batch_size)
        if measured and self._start_up(whole.places) < WORTH_TRYING:
            return ALONE
        if measured and self._seconds(candidate, self._timing(candidate, 1)) < WORTH_TRYING * self._seconds(
            candidate, whole
        ):
            return ALONE
        sites = packable(
            lambda: self._model(candidate),
            lambda model, batch: gradients(model, batch, problem.task, problem.device),
            few_rows(problem.folds, problem.train, problem.device),
            problem.device.autocast or torch.float32,
        )
        if sites is None:
            self._say(
                f"The folds of {name} train one after the other: when packed, their gradients differ or a step fails."
            )
            return ALONE
        way = BY_MODULE_GROUP if sites else MODULES
        try:
            fits = self._fits(candidate, sites)
            if not measured:
                return way
            if not fits:
                return ""
            together = self._seconds(candidate, self._timing(candidate, candidate.hyper.batch_size, packed=True), sites)
        except Exception as error:  # the comparison of gradients runs without dropout and the like, which may not pack
            if machine.fault(error):  # which says nothing about the method
                raise
            self._say(f"The folds of {name} train one after the other: when packed, a step fails. {in_a_line(error)}")
            return ALONE
        alone = len(problem.folds) * self._seconds(candidate, whole)
        return way if alone > WORTH_DOING * together else ALONE

    def _fits(self, candidate: Candidate, sites: bool) -> bool:
        """Whether the predicted memory of a packed step of the candidate is within the budget."""
        problem, name, limit = self._problem, candidate.method.name, self._problem.budget.max_gpu_memory
        problem.packed[name] = sites
        try:
            packed = Execution(candidate.hyper.batch_size, folds=len(problem.folds))
            peak = problem.cost_estimator.predict(candidate, packed).peak
        finally:
            del problem.packed[name]
        return limit is None or peak <= limit

    def _start_up(self, tokens: int) -> float:
        """The share of a pass over this many tokens that is start-up cost, by rule of thumb; 1 if there is no rule."""
        spec, device = self._problem.base.spec, self._problem.device.type
        if device not in LAYER_OVERHEAD:
            return 1.0
        overhead = LAYER_OVERHEAD[device] * spec.num_hidden_layers
        return overhead / (overhead + tokens * sum(linear.in_features * linear.out_features for linear in spec.linears))

    def _model(self, candidate: Candidate) -> nn.Module:
        model = attach(self._problem.base, candidate.method, candidate.params, seed=self._problem.spec.seed)
        return model.to(self._problem.device.type)

    def _pass(self, model: nn.Module, batch: Batch) -> None:
        backward(model, batch, self._problem.task, self._problem.device)

    def _timing(self, candidate: Candidate, size: int, *, packed: bool = False) -> Batch:
        """A batch as in training, cut to `size` rows per fold."""
        seed, data = self._problem.spec.seed, self._problem.train
        rows = []
        for index, fold in enumerate(self._problem.folds if packed else self._problem.folds[:1]):
            count = -(-len(fold.train) // candidate.hyper.batch_size)
            chosen = bucketed(data.extents[fold.train], count, derive_seed(seed, index), seed)[0]
            rows.append(fold.train[chosen[:size]])
        return Batch.of(data, rows, self._problem.device.type)

    def _seconds(self, candidate: Candidate, batch: Batch, sites: bool = False) -> float:
        """Seconds of a forward and a backward pass in training, once the device is warm."""
        model = self._model(candidate)
        if len(batch.sizes) > 1:
            pack(model, len(batch.sizes), sites=sites)
        train_mode(model)
        with torch.random.fork_rng():
            self._pass(model, batch)
            return seconds_of(lambda: self._pass(model, batch))


def few_rows(folds: Sequence[Fold], data: Encoded, device: Device, times: int = 1) -> Batch:
    """A few rows of each fold, none twice if there are enough, as rows compared must differ; all of that `times`."""
    picked: list[np.ndarray] = []
    for fold, count in zip(folds, itertools.cycle(CHECKED_ROWS), strict=False):
        fresh = np.setdiff1d(fold.train, np.concatenate([*picked, np.array([], dtype=int)]))
        picked.append((fresh if len(fresh) >= count else fold.train)[:count])
    return Batch.of(data, picked * times, device.type)


def gradients(model: nn.Module, batch: Batch, task: Task, device: Device) -> dict[str, torch.Tensor]:
    """The gradients of trained tensors for one batch, without dropout; none are left in the model."""
    factors = torch.full((len(batch.sizes),), PROBE, device=device.type) if device.scaled else None
    backward(model.eval(), batch, task, device, factors=factors)
    found = {name: p.grad.detach() for name, p in trainable(model).items() if p.grad is not None}
    if factors is not None:
        found = {name: gradient / PROBE for name, gradient in found.items()}
    model.zero_grad()
    return found
