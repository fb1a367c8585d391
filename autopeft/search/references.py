"""Reference models that need no add-on: the base model as it is, its head alone, and all its weights trained.

They are trained once, on all training rows, by fixed recipes, so that the winner can be compared with something.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from autopeft.budget.limits import MEMORY
from autopeft.budget.time_watch import OverTimeError
from autopeft.common.containment import running_time
from autopeft.common.free_memory import free_memory
from autopeft.common.units import format_seconds
from autopeft.methods.candidate import Candidate
from autopeft.methods.contract import CONTRACT, PeftMethod
from autopeft.methods.search_space import SearchSpace
from autopeft.methods.training_space import TRAINING_SPACE, Hyperparameters
from autopeft.models.quantization import NONE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autopeft.common.params import Params
    from autopeft.execution.problem import Problem
    from autopeft.methods.contract import ModelSpec
    from autopeft.training.learner import Learner

BASE, HEAD, FULL = "base model", "head alone", "full fine-tuning"
"""Their names."""

FULL_RATE, FULL_WARMUP = 5e-5, 0.1
"""Learning rate of full fine-tuning: the highest of the 2e-5 to 5e-5 of Devlin et al. 2019 (arXiv:1810.04805, appendix
A.3), as studies take few steps; and the warm-up of Mosbach et al. 2021 (arXiv:2006.04884)."""

PATIENCE, LEAST_SECONDS = 3.0, 120.0
"""A reference model may take this many times as long as the slowest refit, and this many seconds in any case."""

TIMED_STEPS = 5
"""Number of steps after which its time is predicted."""


class HeadAlone(PeftMethod):
    """The head on the frozen base model, trained at the default rate of `TRAINING_SPACE`."""

    contract = CONTRACT
    name = HEAD

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Nothing."""
        return SearchSpace({})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Let the head require gradients."""
        for name in spec.head:
            model.get_submodule(name).requires_grad_(True)
        return model


class FullFineTuning(HeadAlone):
    """Every weight, in float32."""

    name = FULL

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Give the model its own copy of the weights; modules that share one still share it."""
        own: dict[int, nn.Parameter] = {}
        for module in model.modules():
            for name, shared in module._parameters.items():
                if shared is not None and shared.is_floating_point():
                    kept = own.setdefault(id(shared), nn.Parameter(shared.detach().float().clone()))
                    module._parameters[name] = kept
        return model


def candidates(problem: Problem) -> list[Candidate]:
    """The two that are trained, for as many epochs as the longest default."""
    part = max(problem.space.values(), key=lambda part: part.default().hyper.epochs)
    epochs = part.default().hyper.epochs
    head = Hyperparameters(**{**TRAINING_SPACE.defaults(), "epochs": epochs})  # type: ignore[arg-type]  # as declared
    full = Hyperparameters(FULL_RATE, epochs, head.batch_size, FULL_WARMUP, head.weight_decay)
    searched = part.task.defaults()
    return [Candidate(HeadAlone(), {}, head, searched), Candidate(FullFineTuning(), {}, full, searched)]


def refusal(problem: Problem, candidate: Candidate) -> str:
    """Why a reference model is not trained, in words; "" where it can be.

    Only the budget's memory counts: its other limits are on what is kept.
    """
    if candidate.method.name == HEAD:
        return "" if problem.base.spec.head else "the model has no head to train alone"
    if problem.spec.model.quantization != NONE:
        return f"weights in {problem.spec.model.quantization} cannot be trained"
    need = problem.cost_estimator(candidate).memory.peak
    shared = sum(parameter.nbytes for parameter in problem.base.module.parameters())  # stay where they are
    limit = problem.budget.max_gpu_memory
    if limit is None and problem.device.type == "cpu":
        limit = int(free_memory()) + shared
    if limit is not None and need + shared > limit:
        return f"needs {MEMORY.write(need + shared)} at its peak, but only {MEMORY.write(limit)} is available"
    return ""


class Patience:
    """Times the steps of a training, which may take at most `seconds`; give it to a `Learner`."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._began = seconds, running_time()

    @contextmanager
    def __call__(self, learner: Learner, places: int) -> Iterator[None]:
        """Run one step.

        Raises:
            OverTimeError: the training would take longer.
        """
        yield
        needed = (running_time() - self._began) / learner.done * learner.steps
        if learner.done >= TIMED_STEPS and needed > self._seconds:
            raise OverTimeError(
                f"it would take {format_seconds(needed)}, more than the limit of {format_seconds(self._seconds)} for "
                f"reference models ({PATIENCE:g} times the slowest refit, and at least {LEAST_SECONDS:g} s)."
            )
