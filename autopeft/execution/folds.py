"""How the training rows of a study are split into folds: those of its trials, and fresh ones that no trial has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopeft.common.seeds import FRESH_BATCHES_STREAM, FRESH_SPLITS_STREAM, derive_seed
from autopeft.data.rows_of_tasks import RowsOfTasks
from autopeft.data.split import Fold, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.data.encoded import Encoded
    from autopeft.data.load import StudyData
    from autopeft.execution.problem import Problem
    from autopeft.tasks.contract import Task

FEW, MANY, MANY_FROM = 3, 5, 300
"""Folds of a fresh split, few or many, and the rows from which there are many: more folds train on more rows each, but
with few rows each fold would be scored on too few."""

LEAST_NEW = 10
"""Splits in a row without a new fold after which no more are expected."""


def folds_of(task: Task, rows: StudyData, data: Encoded, folds: int, seed: int) -> list[Fold]:
    """The samples of each fold; samples of the same row stay together.

    Raises:
        ValueError: there are too few groups, or rows of a label, for this many folds.
    """
    groups = rows.train["group"].tolist() if "group" in rows.train else None
    strata = task.strata(rows.train)
    shares = None if strata is None else strata.tolist()
    found = split(len(rows.train), shares, groups, folds, seed)
    return [Fold(*(data.samples_of(np.sort(part)) for part in (fold.train, fold.validation))) for fold in found]


class FreshFolds:
    """Folds of more and more splits of a study's training rows, by its groups and strata, numbered over all splits.

    A fold that validates the same rows as an earlier one is left out: few rows or few groups can be split in few ways.

    Attributes:
        size: folds of a split.
        label: of the base model that the folds are for.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem, self.label = problem, problem.label
        self._parts = problem.parts or {"": problem}
        self.size = min(map(_size, self._parts.values()))
        self._seen = {_key(fold) for fold in problem.folds}
        self._found: dict[int, Fold] = {}
        self._splits, self._vain = 0, 0

    def first(self, count: int) -> list[int]:
        """The numbers of the first `count` folds, or of fewer if there are no more."""
        while len(self._found) < count and self._vain < LEAST_NEW:
            before = len(self._found)
            self._draw()
            self._vain = 0 if len(self._found) > before else self._vain + 1
        return [*self._found][:count]

    def __getitem__(self, number: int) -> Fold:
        return self._found[number]

    def __len__(self) -> int:
        return len(self._found)

    def problem(self, number: int) -> Problem:
        """The study's problem for this fold alone, with its own batches."""
        return self._problem.on(self[number], derive_seed(self._problem.spec.seed, FRESH_BATCHES_STREAM, number))

    def _draw(self) -> None:
        """Draw one more split."""
        problem, start = self._problem, self._splits * self.size
        seed = derive_seed(problem.spec.seed, FRESH_SPLITS_STREAM, self._splits)
        self._splits += 1
        try:
            parts = {
                name: folds_of(part.task, part.rows, part.train, self.size, seed) for name, part in self._parts.items()
            }
            data = problem.train
            drawn = joined_folds(data, parts) if isinstance(data, RowsOfTasks) else parts[""]
        except ValueError:  # the rows cannot be split into this many folds, however they are drawn
            self._vain = LEAST_NEW
            return
        for number, fold in enumerate(drawn, start):
            if _key(fold) not in self._seen:
                self._seen.add(_key(fold))
                self._found[number] = fold


def joined_folds(data: RowsOfTasks, folds: Mapping[str, Sequence[Fold]]) -> list[Fold]:
    """Fold i of every task as one fold of the rows of all."""
    return [
        Fold(
            data.joined({name: fold.train for name, fold in zip(folds, several, strict=True)}),
            data.joined({name: fold.validation for name, fold in zip(folds, several, strict=True)}),
        )
        for several in zip(*folds.values(), strict=True)
    ]


def _size(problem: Problem) -> int:
    """How many folds a fresh split of its rows may have."""
    rows = problem.rows.train
    size = MANY if len(rows) >= MANY_FROM else FEW
    if "group" in rows:
        size = min(size, rows["group"].nunique())
    if (strata := problem.task.strata(rows)) is not None:  # every fold validates some rows of each
        size = min(size, max(int(strata.value_counts().min()), 2))
    return size


def _key(fold: Fold) -> bytes:
    return np.asarray(fold.validation, np.int64).tobytes()
