"""The trials of a replayed study: how far each was trained, and where it stood there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from constants import points_at
from effects import mean_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cells import Cell
    from constants import Constants


class Reached(NamedTuple):
    """Where candidates stand at a rung: means over the folds, NaN where no point was recorded."""

    score: np.ndarray
    loss: np.ndarray
    cost: np.ndarray


def best_first(reached: Reached, *, by_loss: bool = False) -> list[int]:
    """Places in order: by score, ties by loss, then by cost; or by loss first.

    What has no point there is not judged, and comes before what has; of what diverged the loss is the worst.
    """
    unknown = np.isnan(reached.score)
    score, loss = np.where(unknown, math.inf, reached.score), np.where(np.isnan(reached.loss), math.inf, reached.loss)
    first, second = (loss, -score) if by_loss else (-score, loss)
    return [int(i) for i in np.lexsort((reached.cost, second, first, ~unknown))]


class Search:
    """A study on the recorded curves of one repeat while it goes on.

    Attributes:
        size: rows that a fold trains on.
        constants: what other groups advise.
        length, default, cost: of every candidate of the cell.
        end, end_loss: of every candidate, means over the folds; those of where it stopped early, if it may.
        end_rows: of all folds, to where it ends.
        comparator: the candidate that is the best default elsewhere.
    """

    def __init__(self, cell: Cell, repeat: int, constants: Constants, comparator: int, *, early: bool) -> None:
        self.size, self.constants, self.comparator = cell.size, constants, comparator
        self.length, self.default, self.cost = cell.length, cell.default, cell.cost
        self._epochs, self._score = cell.epochs, mean_of(cell.score[:, repeat], 1)
        self._loss, self._folds = mean_of(cell.loss[:, repeat], 1), cell.end.shape[2]
        self._rows = cell.rows * self._folds
        self.ends, self.end_loss = cell.end[:, repeat], mean_of(cell.end_loss[:, repeat], 1)
        self.end_rows, self.test = cell.end_rows * self._folds, cell.halves
        if early:
            self._stop_early(cell, repeat)
        self.end = self.ends.mean(axis=1)
        self.trained = np.zeros(len(self.end))
        self.complete: list[int] = []
        self.path: list[tuple[float, int]] = []

    def reach(self, candidates: Sequence[int], epochs: float) -> Reached:
        """Train these to a rung; whoever ends before it has its end there."""
        which = np.asarray(candidates)
        place = points_at(self._epochs[which], self.length[which], epochs)
        ended = (self.length[which] <= epochs) | ((place >= 0) & (self._rows[which, place] >= self.end_rows[which]))

        def there(values: np.ndarray, end: np.ndarray) -> np.ndarray:
            return np.where(ended, end[which], np.where(place >= 0, values[which, place], np.nan))

        rows = np.minimum(np.nan_to_num(there(self._rows, self.end_rows)), self.end_rows[which])
        self.trained[which] = np.maximum(self.trained[which], rows)
        return Reached(there(self._score, self.end), there(self._loss, self.end_loss), self.cost[which])

    def finish(self, candidate: int) -> None:
        """Train one to its end."""
        self.trained[candidate] = self.end_rows[candidate]
        self.complete.append(candidate)
        self.path.append((float(self.trained.sum()), self.best()))

    def best(self) -> int:
        """Of those that completed, by the mean over the folds; ties by loss, then by cost."""
        some = np.array(self.complete)
        return int(some[best_first(Reached(self.end[some], self.end_loss[some], self.cost[some]))[0]])

    def _stop_early(self, cell: Cell, repeat: int) -> None:
        """Put where each would stop in the place of its end.

        It stops at the first point at which the best one so far is a third of the rows back, and keeps the first point
        that is within one standard error of that best one. Test scores are those of the nearest point that has them.
        """
        self.ends, self.end_loss, self.end_rows, self.test = (
            values.copy() for values in (self.ends, self.end_loss, self.end_rows, self.test)
        )
        on_test = mean_of(cell.test_on_the_way, (1, 2))
        for candidate in range(len(self.ends)):
            stop = _early(self._score[candidate], cell.score[candidate, repeat], self._rows[candidate])
            if stop is None or self._rows[candidate, stop[1]] >= self.end_rows[candidate]:
                continue
            kept, last = stop
            self.ends[candidate] = cell.score[candidate, repeat, :, kept]
            self.end_loss[candidate] = self._loss[candidate, kept]
            with_test = np.flatnonzero(~np.isnan(on_test[candidate, :, 0]))
            if len(with_test):
                near = np.abs(np.log(self._rows[candidate, with_test] / self._rows[candidate, kept]))
                self.test[candidate] = on_test[candidate, with_test[np.argmin(near)]]
            self.end_rows[candidate] = self._rows[candidate, last]


def _early(mean: np.ndarray, folds: np.ndarray, rows: np.ndarray) -> tuple[int, int] | None:
    """The point that is kept and the one at which training stops; None where it goes on to its end."""
    best = 0
    for point in range(len(mean)):
        if math.isnan(mean[point]):
            return None
        if mean[point] > mean[best]:
            best = point
        elif rows[best] <= rows[point] * 2 / 3:
            apart = folds[:, best, None] - folds[:, :best]
            error = np.std(apart, axis=0, ddof=1) / math.sqrt(len(folds)) if len(folds) > 1 else np.zeros(best)
            alike = np.flatnonzero(apart.mean(axis=0) <= error)
            return (int(alike[0]) if len(alike) else best), point
    return None
