"""What a search would face, without training: each method's dimensions, and how much of its space fits the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from autopeft.units import format_bytes

if TYPE_CHECKING:
    from autopeft.budget import Budget
    from autopeft.candidate import Candidate
    from autopeft.problem import Problem
    from autopeft.search_space import SearchSpace

SAMPLES = 24
SHOWN = 5


@dataclass(frozen=True)
class Planned:
    """One sampled candidate and what it would need."""

    candidate: str
    trainable_params: int
    saved_params: int
    memory: int
    fits: bool


@dataclass(frozen=True)
class MethodPlan:
    """One method's part of the space.

    Attributes:
        name: the method.
        dimensions: name → range, its own and the training ones.
        sampled: candidates drawn evenly from the space, the default first.
        share: part of the drawn ones that the budget admits.
    """

    name: str
    dimensions: dict[str, str]
    sampled: list[Planned]
    share: float


def plan(problem: Problem, samples: int = SAMPLES) -> list[MethodPlan]:
    """Appraise the default and `samples` random candidates of every method."""
    plans = []
    for name, part in problem.space.items():
        drawn = [_appraise(problem, c) for c in part.sample(samples, problem.spec.seed)]
        share = sum(planned.fits for planned in drawn) / len(drawn)
        dimensions = {**_shown(part.own), **_shown(part.training)}
        plans.append(MethodPlan(name, dimensions, [_appraise(problem, part.default()), *drawn], share))
    return plans


def show(plans: list[MethodPlan], budget: Budget) -> RenderableType:
    """The plan as tables."""
    parts: list[Any] = []
    limits = [
        f"max_trainable_params = {budget.max_trainable_params:,}" if budget.max_trainable_params else "",
        f"max_gpu_memory = {format_bytes(budget.max_gpu_memory)}" if budget.max_gpu_memory else "",
    ]
    parts.append("Budget: " + (", ".join(filter(None, limits)) or "none"))
    for entry in plans:
        space = Table(
            "dimension", "range", title=f"{entry.name}: {entry.share:.0%} of its space fits", title_justify="left"
        )
        for name, text in entry.dimensions.items():
            space.add_row(name, text)
        table = Table("candidate", "trained", "saved", "predicted peak", "fits")
        for planned in entry.sampled[: SHOWN + 1]:
            cells = (f"{planned.trainable_params:,}", f"{planned.saved_params:,}", format_bytes(planned.memory))
            table.add_row(planned.candidate, *cells, "yes" if planned.fits else "no")
        parts += [space, table]
    return Group(*parts)


def _appraise(problem: Problem, candidate: Candidate) -> Planned:
    usage = problem.appraiser(candidate)
    fits = problem.budget.admits(usage)
    return Planned(str(candidate), usage.trainable_params, usage.saved_params, usage.memory.peak, fits)


def _shown(space: SearchSpace) -> dict[str, str]:
    return {
        name: str(dimension) + (f"  (where {dimension.when[0]} is {dimension.when[1]})" if dimension.when else "")
        for name, dimension in space.items()
    }
