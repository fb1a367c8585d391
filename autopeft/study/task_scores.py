"""What a study of several tasks keeps about each of them, beside the gain that it maximises."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.common.params import ParamValue

SINGLES = "single_tasks"
"""The user attribute of a study with the record of each task's single-task default, by the task's name."""


def alone_key(task: str) -> str:
    """The key, among a study's notes on models, of the one that was trained on this task alone."""
    return f"{task} alone"


@dataclass(frozen=True)
class TaskScore:
    """How the winner does on one task, beside the task's single-task default.

    Attributes:
        kind: of the task.
        metric: of its scores.
        score: of the winner on the task's held-out rows.
        single: of the single-task default there, which is named `single_name`.
        baseline: there, of a model that ignores the inputs, which is named `baseline_name`.
        folds: of the winner in cross-validation.
        single_folds: of the single-task default on the same folds.
    """

    kind: str
    metric: str
    score: float
    single: float
    single_name: str
    baseline: float
    baseline_name: str
    folds: tuple[float, ...]
    single_folds: tuple[float, ...]

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> TaskScore:
        """The score that was written as this JSON."""
        return cls(**{**content, "folds": tuple(content["folds"]), "single_folds": tuple(content["single_folds"])})

    @property
    def lead(self) -> Lead:
        """How far it is above its single-task default in cross-validation."""
        return lead(self.folds, self.single_folds)


@dataclass(frozen=True)
class Lead:
    """The mean of the differences of scores on the same folds, and the standard error of that mean."""

    mean: float
    error: float

    @property
    def negative(self) -> bool:
        """Whether the task is worse together with the others than alone, by more than one standard error."""
        return self.mean < -self.error


def lead(folds: Sequence[float], single: Sequence[float]) -> Lead:
    """How far scores are above those of a single-task default on the same folds."""
    gaps = [own - other for own, other in zip(folds, single, strict=True)]
    return Lead(fmean(gaps), stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0)


def scores_in(facts: Mapping[str, ParamValue]) -> dict[str, tuple[float, ...]]:
    """The scores of each task over the folds, from the facts of a trial's record (`SeveralTasks.after_folds`)."""
    found: dict[str, list[tuple[int, float]]] = {}
    for key, value in facts.items():
        task, _, rest = key.partition("/score/")
        if rest.isdigit() and isinstance(value, int | float):
            found.setdefault(task, []).append((int(rest), float(value)))
    return {task: tuple(score for _, score in sorted(pairs)) for task, pairs in found.items()}


def facts_in(facts: Mapping[str, ParamValue], task: str) -> dict[str, ParamValue]:
    """The facts that a task's answers need, from those of a trial's record."""
    start = f"{task}/fact/"
    return {key.removeprefix(start): value for key, value in facts.items() if key.startswith(start)}
