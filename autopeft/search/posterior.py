"""How good the candidates truly are, as far as the scores of their folds show: one model for all runs of a study.

A run is one candidate on one block: a fold of one split, which has the same rows for every candidate that ran it.

    score(candidate i, block b) = true_i + gap_i + effect_b + e,   true_i ~ N(prior_i, between_i),
                                                                    gap_i ~ N(0, floor · folds),   e ~ N(0, folds)

The effects of blocks are free, so only differences between candidates that shared blocks count, and the level of the
scores does not. The gap is what no repetition on the same rows removes: the rows are only one sample, and what is
trained on all of them at last is only one model. Means move towards their priors, the more the fewer folds there are
(empirical Bayes; the correction for folds that share rows, Nadeau & Bengio 2003, is the `floor` here).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtr

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST = 1e-10
"""Variance that is always left: otherwise, folds whose scores all agree would make a zero difference certain."""

SMALLEST = 1e-9
"""Smaller eigenvalues of the information about candidates count as zero."""


class Run(NamedTuple):
    """The score of one candidate on one block, both by number from 0."""

    candidate: int
    block: int
    score: float


@dataclass(frozen=True)
class Variances:
    """How widely candidates and folds scatter, in squares of the score's unit; from recorded studies, or `estimated`.

    Attributes:
        between: variance of candidates' true scores around their prior means.
        folds: variance of a candidate's score on a block, beyond what candidate and block explain.
        floor: the gap's variance, as a share of `folds`.
        degrees: degrees of freedom that `folds` rests on; infinite where it is taken as known.
    """

    between: float
    folds: float
    floor: float
    degrees: float = math.inf

    def seen(self, runs: Sequence[Run]) -> Variances:
        """Updated with the residuals of a study's own runs, weighted by the degrees of freedom of each side."""
        if math.isinf(self.degrees):
            return self
        squares, own = residual_squares(runs)
        degrees = self.degrees + own
        return replace(self, folds=(self.degrees * self.folds + squares) / degrees, degrees=degrees)

    @classmethod
    def estimated(cls, runs: Sequence[Run], prior: Sequence[float], floor: float) -> Variances:
        """Estimated from the runs alone, by moments, as no study of the kind is recorded.

        Raises:
            ValueError: the runs leave no residual: fewer than two candidates shared two blocks.
        """
        squares, degrees = residual_squares(runs)
        if not degrees:
            raise ValueError(
                "the variance of folds needs two candidates that ran two blocks in common. Give Variances instead."
            )
        folds = squares / degrees
        table = _Table.of(runs, len(prior))
        ran = np.flatnonzero(table.counts.sum(axis=1))
        spread = np.var((table.effects[0] - np.asarray(prior, float))[ran], ddof=1) if len(ran) > 1 else 0.0
        noise = folds * (np.mean(1 / table.counts.sum(axis=1)[ran]) + floor)
        return cls(max(float(spread - noise), LEAST), folds, floor, degrees)


@dataclass(frozen=True)
class Posterior:
    """The posterior of the candidates' true scores, jointly normal.

    Attributes:
        mean: of each candidate, relative to the level that all share.
        cov: their covariances.
        lasting: the part of each variance that more blocks would not remove.
    """

    mean: np.ndarray
    cov: np.ndarray
    lasting: np.ndarray

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        prior: Sequence[float],
        variances: Variances,
        between: Sequence[float] | None = None,
    ) -> Posterior:
        """The posterior after these runs.

        Args:
            runs: any candidates on any blocks; not every candidate ran on every block.
            prior: what is expected of each candidate before any run, on any level.
            variances: how widely they scatter.
            between: each candidate's own variance around its prior, where some are better known than others.
        """
        expected, table = np.asarray(prior, float), _Table.of(runs, len(prior))
        folds = max(variances.folds, LEAST)
        spread = np.full(len(expected), variances.between) if between is None else np.asarray(between, float)
        spread = np.maximum(spread, LEAST)
        gap = variances.floor * folds
        own = 1 / (spread + gap)
        cov = np.linalg.inv(np.diag(own) + table.information / folds)
        mean = cov @ (own * expected + table.told / folds)
        kept = spread / (spread + gap)  # the part of a candidate's lead over its prior that is not a gap
        lasting = kept * gap
        return cls(expected + kept * (mean - expected), np.outer(kept, kept) * cov + np.diag(lasting), lasting)

    def difference(self, first: int, second: int) -> tuple[float, float]:
        """Mean and standard deviation of how much better the first truly is than the second."""
        variance = self.cov[first, first] + self.cov[second, second] - 2 * self.cov[first, second]
        return float(self.mean[first] - self.mean[second]), math.sqrt(max(float(variance), LEAST))

    def chance(self, first: int, second: int, *, by: float = 0.0, temperature: float = 1.0) -> float:
        """The probability that the first is truly better than the second by more than `by`.

        Args:
            first: a candidate by number.
            second: another.
            by: in the score's unit; below zero where the first may be that much worse.
            temperature: factor of the deviation, chosen so that the chances stated for recorded studies hold.
        """
        mean, deviation = self.difference(first, second)
        return float(ndtr((mean - by) / (temperature * deviation)))

    def chance_to_stay(self, first: int, second: int) -> float:
        """The probability that the first still has the higher mean after infinitely many more blocks for both."""
        mean, deviation = self.difference(first, second)
        lasting = float(self.lasting[first] + self.lasting[second])
        return float(ndtr(mean / math.sqrt(max(deviation**2 - lasting, LEAST))))

    def chances(self, than: int) -> np.ndarray:
        """For every candidate, the probability that it is truly better than this one; a half for itself."""
        variance = np.diag(self.cov) + self.cov[than, than] - 2 * self.cov[than]
        found: np.ndarray = ndtr((self.mean - self.mean[than]) / np.sqrt(np.maximum(variance, LEAST)))
        return found


def residual_squares(runs: Sequence[Run]) -> tuple[float, int]:
    """The part of the scores that candidates and blocks do not explain: sum of squares, and its degrees of freedom."""
    if not runs:
        return 0.0, 0
    table = _Table.of(runs, max(run.candidate for run in runs) + 1)
    effects, rank = table.effects
    rest = table.scores - effects[table.candidate]
    rest -= (np.bincount(table.block, rest) / table.counts.sum(axis=0))[table.block]
    return float(rest @ rest), len(rest) - rank - table.counts.shape[1]


class _Table(NamedTuple):
    """Runs as a table of candidates and blocks, with the effects of blocks eliminated.

    Attributes:
        candidate, block, scores: of each run; blocks that nobody ran are left out.
        counts: number of runs, by candidate and block.
        information: about the candidates, before it is divided by the variance of folds.
        told: by candidate, the sum of its scores, each less the mean of its block.
    """

    candidate: np.ndarray
    block: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    information: np.ndarray
    told: np.ndarray

    @classmethod
    def of(cls, runs: Sequence[Run], candidates: int) -> _Table:
        candidate = np.array([run.candidate for run in runs], int)
        scores = np.array([run.score for run in runs], float)
        there, block = np.unique([run.block for run in runs], return_inverse=True)
        counts = np.bincount(candidate * len(there) + block, minlength=candidates * len(there)).astype(float)
        counts = counts.reshape(candidates, len(there))
        shares = counts / counts.sum(axis=0)
        told = np.bincount(candidate, scores, minlength=candidates) - shares @ np.bincount(block, scores)
        information = np.diag(counts.sum(axis=1)) - shares @ counts.T
        return cls(candidate, block, scores, counts, information, told)

    @property
    def effects(self) -> tuple[np.ndarray, int]:
        """The candidates' effects by least squares: how far each is above the others on shared blocks; and the rank.

        Candidates that no block connects have no difference, so this is the solution of the least norm.
        """
        values, vectors = np.linalg.eigh(self.information)
        there = values > SMALLEST
        told = vectors[:, there].T @ self.told
        found: np.ndarray = vectors[:, there] @ (told / values[there])
        return found, int(there.sum())
