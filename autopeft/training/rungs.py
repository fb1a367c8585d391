"""The rungs of a trial: after how many epochs its folds are scored and the pruner is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FEWEST_ROWS = 1000
"""Rows a fold must have trained on before its score says anything about its final score. On recorded curves of folds of
100 rows, the ranks after 1, 2 and 4 of 24 epochs said next to nothing of the ranks at the end, those after 8 did
(`benchmarks/bank/pruning.py`, docs/choosing.md)."""

SMALLEST_PART = 1 / 8
"""Smallest part of an epoch before a rung: scoring more often costs more than it saves."""

LATEST_PART = 1 / 6
"""The first rung is not later than this part of the longest training; the default length is half of the longest."""


@dataclass(frozen=True)
class Rung:
    """Where a trial stands at its rung `number` (from 1), after `epoch` epochs.

    A score, a state (`autopeft.training.collapse`) and a training loss per fold, and the mean loss.
    """

    number: int
    epoch: float
    scores: tuple[float, ...]
    loss: float
    states: tuple[str, ...] = ()
    losses: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean score over the folds: what the pruner and the sampler see."""
        return float(np.mean(self.scores))


def rung_ends(epochs: int, rows: int, longest: int = 0) -> list[float]:
    """Epochs trained by the end of each rung: the first, twice as many, four times as many, … and at last `epochs`.

    The first is one epoch. It is a half, a quarter or an eighth of one if a fold has so many `rows` that a part of them
    tells enough. It is two epochs, four, … up to a sixth of the study's `longest` training, if one epoch has too few
    rows to tell anything. Each rung doubles what was spent before, as in successive halving (Jamieson & Talwalkar 2016,
    arXiv:1502.07943).
    """
    first = 1.0
    while first > SMALLEST_PART and rows * first / 2 >= FEWEST_ROWS:
        first /= 2
    while rows * first < FEWEST_ROWS and first * 2 <= longest * LATEST_PART:
        first *= 2
    return doubled(first, float(epochs))


def doubled(first: float, last: float) -> list[float]:
    """Rungs that double from the first one until they reach the last."""
    ends = [min(first, last)]
    while ends[-1] * 2 < last:
        ends.append(ends[-1] * 2)
    return [*ends, last] if ends[-1] < last else ends


def epochs_between(start: float, end: float) -> list[tuple[int, tuple[float, float]]]:
    """The epochs (from 1) from `start` to `end`, each with the shares of it that lie between them."""
    return [
        (epoch + 1, (max(start - epoch, 0.0), min(end - epoch, 1.0))) for epoch in range(int(start), math.ceil(end))
    ]
