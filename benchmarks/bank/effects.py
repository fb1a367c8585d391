"""Tables of scores with gaps: means, what rows and columns bring, and how much of the rest is noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def mean_of(values: np.ndarray, axes: int | tuple[int, ...]) -> np.ndarray:
    """The mean of what is there; NaN where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis=axes)
    return np.where(count, np.where(there, values, 0).sum(axis=axes) / np.maximum(count, 1), np.nan)


def halves_noise(halves: np.ndarray) -> float:
    """Variance of the mean of two halves, beyond what all candidates share."""
    gaps = halves[:, 0] - halves[:, 1]
    gaps = gaps[~np.isnan(gaps)]
    return float(np.var(gaps, ddof=1) / 4) if len(gaps) > 1 else 0.0


@dataclass(frozen=True)
class TwoWay:
    """A table as effects of its rows and of its columns: `row` sums to zero."""

    row: np.ndarray
    column: np.ndarray

    @property
    def fitted(self) -> np.ndarray:
        """The table as the effects have it."""
        return self.row[:, None] + self.column


def two_way(table: np.ndarray, weights: np.ndarray, rounds: int = 60) -> TwoWay:
    """By weighted least squares, of a table with gaps: row and column effects in turn until they are still.

    Args:
        table: scores, [rows, columns]; NaN where there is none.
        weights: of the entries, as large or one for each column.
        rounds: at most.
    """
    weights = np.where(np.isnan(table), 0.0, np.broadcast_to(weights, table.shape))
    values, row = np.nan_to_num(table), np.zeros(len(table))
    by_row, by_column = np.maximum(weights.sum(axis=1), 1e-12), np.maximum(weights.sum(axis=0), 1e-12)
    for _ in range(rounds):
        column = (weights * (values - row[:, None])).sum(axis=0) / by_column
        before, row = row, (weights * (values - column)).sum(axis=1) / by_row
        row = np.where(weights.any(axis=1), row - row[weights.any(axis=1)].mean(), np.nan_to_num(row))
        if np.abs(row - before).max() < 1e-9:
            break
    return TwoWay(row, (weights * (values - row[:, None])).sum(axis=0) / by_column)


def shrunk(table: np.ndarray, weights: np.ndarray, noise: float) -> np.ndarray:
    """A table whose entries are moved towards what their row does in other columns, by as much as they are noise.

    Else whoever looks for the best ones would collect lucky ones.

    Args:
        table: scores, [rows, columns]; NaN where there is none.
        weights: of columns.
        noise: variance of an entry that is luck.
    """
    fitted = two_way(table, weights).fitted
    rest = table - fitted
    spread = float(np.nanvar(rest))
    return fitted + rest * (max(0.0, 1 - noise / spread) if spread else 0.0)


def residual_squares(scores: np.ndarray) -> tuple[float, int]:
    """What rows and columns leave unexplained: the sum of squares, and its degrees of freedom, which may be below 1.

    Args:
        scores: [rows, columns], NaN where not recorded.
    """
    there = ~np.isnan(scores)
    rest = (scores - two_way(scores, there.astype(float)).fitted)[there]
    return float(rest @ rest), int(there.sum() - there.any(axis=1).sum() - there.any(axis=0).sum() + 1)
