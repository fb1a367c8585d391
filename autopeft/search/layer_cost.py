"""What a model costs that has no add-ons in its lowest layers: its numbers, its file and the time of a row."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from autopeft.models.attach import trainable
from autopeft.models.marks import LAYER
from autopeft.models.weights_file import file_size, saved_tensors
from autopeft.training.learner import evaluate

if TYPE_CHECKING:
    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate

TIMED_ROWS, TIMES = 64, 3
"""Number of training rows whose passes are timed, and how often; the shortest time counts."""


class LayerCost(NamedTuple):
    """What a model costs.

    Attributes:
        params: trained parameters, with the head's.
        saved: bytes of its file.
        seconds: of a row's pass.
        below: of those, the part before the lowest layer with an add-on, which winners on one base model have in
            common.
    """

    params: int
    saved: int
    seconds: float
    below: float


def cost_of(problem: Problem, candidate: Candidate, model: nn.Module, count: int) -> LayerCost:
    """The cost of a model whose lowest `count` layers have no add-on."""
    params = sum(parameter.numel() for parameter in trainable(model).values())
    seconds, below = _timed(problem, model, count)
    return LayerCost(params, file_size(saved_tensors(model, candidate.method)), seconds, below)


def _timed(problem: Problem, model: nn.Module, count: int) -> tuple[float, float]:
    """Seconds of a row's pass, and of its part before layer `count`."""
    rows = problem.train.samples_of(problem.train.rows_of(problem.all_rows)[:TIMED_ROWS])
    (layer,) = (module for module in model.modules() if getattr(module, LAYER, None) == count)
    clock = _Clock(model, layer, problem.device.type)
    found = [(math.inf, math.inf)]
    try:
        for _ in range(TIMES):
            clock.below = clock.whole = 0.0
            evaluate(model, problem.train, [rows], problem.task, problem.device)
            found.append((clock.whole / len(rows), clock.below / len(rows)))
    finally:
        clock.remove()
    return min(found)


class _Clock:
    """Adds up the seconds of a model's passes, and those until a layer begins."""

    def __init__(self, model: nn.Module, layer: nn.Module, device: str) -> None:
        self.whole = self.below = self._began = 0.0
        self._device = device
        self._hooks = (
            model.register_forward_pre_hook(self._start),
            layer.register_forward_pre_hook(self._reach),
            model.register_forward_hook(self._end),
        )

    def remove(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()

    def _now(self) -> float:
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _start(self, *_: Any) -> None:
        self._began = self._now()

    def _reach(self, *_: Any) -> None:
        self.below += self._now() - self._began

    def _end(self, *_: Any) -> None:
        self.whole += self._now() - self._began
