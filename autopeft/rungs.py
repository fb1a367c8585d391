"""The rungs of a trial: after how many epochs its folds are scored and the pruner is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

FIRST_RUNG = 0.5


@dataclass(frozen=True)
class Rung:
    """Where a trial stands at its rung `number` (from 1), after `epoch` epochs: a score per fold, the mean loss."""

    number: int
    epoch: float
    scores: tuple[float, ...]
    loss: float

    @property
    def mean(self) -> float:
        """Mean score over the folds: what the pruner and the sampler see."""
        return float(np.mean(self.scores))


def rung_ends(epochs: int) -> list[float]:
    """Epochs trained at each rung's end: 0.5, 1, 2, 4, 8, … and at last `epochs`.

    Each rung doubles what was spent before, as in successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943);
    half an epoch is enough to tell a hopeless trial.
    """
    ends = [FIRST_RUNG]
    while ends[-1] * 2 < epochs:
        ends.append(ends[-1] * 2)
    return [*ends, float(epochs)]


def epochs_between(start: float, end: float) -> list[tuple[int, tuple[float, float]]]:
    """The epochs (from 1) from `start` to `end`, each with the shares of it that lie between them."""
    return [
        (epoch + 1, (max(start - epoch, 0.0), min(end - epoch, 1.0))) for epoch in range(int(start), math.ceil(end))
    ]
