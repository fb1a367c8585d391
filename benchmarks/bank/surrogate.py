"""What any candidate of a study's space would score, told from the recorded curves of one cell.

A cell has a few configurations of a method, and a sampler proposes any. So the curve of a proposal is the mean of the
recorded curves of its method, weighted by how near they are in learning rate and in length, with the share of the
length as their axis. The other dimensions were recorded for too few to be modelled: all that they bring is a constant
for each candidate, drawn from its params with the deviation that a mean over folds has in the cell. So two proposals
hardly ever score the same, and the sampler finds something to learn in rates and lengths alone. Beyond the recorded
rates a candidate scores like the nearest of them, so nothing punishes draws that are far off.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from effects import mean_of, two_way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cells import Cell

    from autopeft.methods.candidate import Candidate

DECADES, DOUBLINGS = 0.25, 1.0
"""Deviations of the kernel, in learning rate and in length."""


@dataclass(frozen=True)
class Recorded:
    """A recorded curve: its learning rate, its length in epochs, and scores at shares of that length, both rising."""

    rate: float
    length: float
    shares: np.ndarray
    scores: np.ndarray


class Surrogate:
    """Curves of candidates on one cell.

    Args:
        cell: whose curves are known; of each the mean over repeats and folds counts.
    """

    def __init__(self, cell: Cell) -> None:
        self._curves: dict[str, list[Recorded]] = {}
        scores, ends = mean_of(cell.score, (1, 2)), mean_of(cell.end, (1, 2))
        for one in np.flatnonzero(~np.isnan(ends)):
            there = ~np.isnan(scores[one]) & ~np.isnan(cell.epochs[one]) & (cell.epochs[one] < cell.length[one])
            shares = np.append(cell.epochs[one][there] / cell.length[one], 1.0)
            curve = Recorded(cell.lr[one], cell.length[one], shares, np.append(scores[one][there], ends[one]))
            self._curves.setdefault(str(cell.method[one]), []).append(curve)
        table = cell.end.reshape(len(cell.end), -1)
        there = ~np.isnan(table)
        rest = (table - two_way(table, there.astype(float)).fitted)[there]
        degrees = max(there.sum() - there.any(axis=1).sum() - there.any(axis=0).sum() + 1, 1)
        self.noise = float(np.sqrt(rest @ rest / degrees / cell.end.shape[2]))

    @property
    def methods(self) -> list[str]:
        """Those that were recorded."""
        return sorted(self._curves)

    def scores(self, candidate: Candidate, ends: Sequence[float], *, noise: bool = True) -> list[float]:
        """Scores after `ends` epochs, without the candidate's own constant unless there is `noise`."""
        curves, hyper = self._curves[candidate.method.name], candidate.hyper
        rates = np.log10([curve.rate / hyper.learning_rate for curve in curves]) / DECADES
        lengths = np.log2([curve.length / hyper.epochs for curve in curves]) / DOUBLINGS
        far = (rates**2 + lengths**2) / 2
        weights = np.exp(far.min() - far)  # the nearest one has 1, however far it is
        shares = np.log(np.array(ends) / hyper.epochs)
        values = np.array([np.interp(shares, np.log(curve.shares), curve.scores) for curve in curves])
        own = self._constant(candidate) if noise else 0.0
        return [float(value) for value in weights @ values / weights.sum() + own]

    def _constant(self, candidate: Candidate) -> float:
        key = json.dumps(candidate.flat, sort_keys=True).encode()
        return float(np.random.default_rng(zlib.crc32(key)).normal(0.0, self.noise))
