"""Whether a difference is real, how sure a score is, and what is worth its cost: textbook rules, in numpy and scipy."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bdtr, ndtri  # scipy.stats, which wraps them, takes seconds to import

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
"""Of every interval; a difference is called real where its p-value is at most one minus this."""


@dataclass(frozen=True)
class Difference:
    """How much one score exceeds another, and how sure that is.

    Attributes:
        mean: the difference itself.
        low, high: ends of its confidence interval.
        p: two-sided p-value of "there is none".
    """

    mean: float
    low: float
    high: float
    p: float


DRAWS = 19_999
"""Of the largest of several differences that are none: ends of intervals are then exact to about one in a hundred."""


def max_t(
    scores: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]], pooled: Sequence[int] = ()
) -> list[Difference]:
    """Compare candidates that were scored on the same k folds, each pair as one of several comparisons.

    A fold's score is taken for a sum of what the candidate has, what the fold has, and noise, whose variance s² all n
    `pooled` candidates tell, with (n - 1)(k - 1) degrees of freedom. With d the mean of a pair's differences,
    t = d / sqrt(2 s² (1/k + n_test/n_train)), and in k-fold cross-validation n_test/n_train = 1/(k - 1). That term is
    the correction for training sets that share most of their rows (Nadeau & Bengio 2003, Machine Learning 52:239-281);
    of one pair alone it is their corrected resampled t-test. P-values and intervals are both from the distribution of
    the largest |t| of all pairs where no candidates differ (single-step max-t; Dunnett 1955, JASA 50:1096-1121; Hothorn
    et al. 2008, Biometrical Journal 50:346-363), so they agree: p is at most one minus the confidence where the
    interval is on one side of 0.

    Args:
        scores: of each candidate on each fold, `[candidates, folds]`.
        pairs: places of those that are compared.
        pooled: places of those whose noise counts; default: all. Of folds that collapsed it is none.

    Returns:
        A difference for each pair, adjusted; none where it cannot be computed: fewer than two folds or candidates, or
        no noise.
    """
    table = np.asarray(scores, float)
    if not pairs or table.ndim < 2 or table.shape[1] < 2:
        return []
    noise = table[list(pooled)] if len(pooled) > 1 else table
    rest = noise - noise.mean(1, keepdims=True) - noise.mean(0) + noise.mean()
    degrees, folds = (len(noise) - 1) * (table.shape[1] - 1), table.shape[1]
    error = math.sqrt(2 * float((rest**2).sum()) / max(degrees, 1) * (1 / folds + 1 / (folds - 1)))
    if error < 1e-12:  # below what scores of a few thousand rows can differ by
        return []
    largest = _largest(len(table), tuple(pairs), degrees)
    beyond = int((1 - CONFIDENCE) * (len(largest) + 1))
    margin, means = error * float(largest[-beyond]), table.mean(1)
    found = []
    for first, second in pairs:
        mean = float(means[first] - means[second])
        above = len(largest) - int(np.searchsorted(largest, abs(mean) / error))
        found.append(Difference(mean, mean - margin, mean + margin, (above + 1) / (len(largest) + 1)))
    return found


@functools.lru_cache(maxsize=64)
def _largest(candidates: int, pairs: tuple[tuple[int, int], ...], degrees: int) -> np.ndarray:
    """Draws of the largest |t| of these pairs where no candidates differ, in order."""
    generator = np.random.default_rng(0)
    means = generator.standard_normal((DRAWS, candidates))
    first, second = np.transpose(pairs)
    spread = np.sqrt(2 * generator.chisquare(degrees, DRAWS) / degrees)
    return np.sort(np.abs(means[:, first] - means[:, second]).max(1) / spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests so that the chance of any false finding stays what one test would have.

    The i-th smallest of m (from 0) is multiplied by m - i, and made no smaller than the one before it (Holm 1979,
    Scandinavian Journal of Statistics 6:65-70).
    """
    adjusted, running = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = running
    return adjusted


def standard_error(scores: Sequence[float]) -> float:
    """Of the mean of fold scores: their standard deviation (k - 1) over sqrt(k); NaN for fewer than two."""
    return float(np.std(scores, ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan


def one_standard_error(scores: Sequence[float], errors: Sequence[float], costs: Sequence[float]) -> int:
    """Position of the cheapest candidate whose score is within one standard error of the best one's.

    The rule of Breiman, Friedman, Olshen & Stone 1984 (Classification and Regression Trees, section 3.4.3): what lies
    within the noise of the best is as good, so simplicity decides. Of equal costs the better score counts.
    """
    best = max(range(len(scores)), key=lambda i: (scores[i], -costs[i]))
    error = 0.0 if math.isnan(errors[best]) else errors[best]
    within = [i for i, score in enumerate(scores) if score >= scores[best] - error]
    return min(within, key=lambda i: (costs[i], -scores[i]))


def pareto_front(scores: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Positions of the candidates that no other beats: none has a higher score at no more cost, or as high for less.

    In order of cost. Of candidates that are equal in both, the first one stands for all.
    """
    front: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (costs[i], -scores[i])):
        if not front or scores[i] > scores[front[-1]]:
            front.append(i)
    return front


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """Confidence interval of a share, such as accuracy: `hits` of `rows` (Wilson 1927, JASA 22:209-212).

    Unlike the normal approximation it stays inside [0, 1] and holds for few rows and for shares near the ends.
    """
    z = float(ndtri((1 + CONFIDENCE) / 2))
    share = hits / rows
    centre = share + z * z / (2 * rows)
    margin = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return (centre - margin) / (1 + z * z / rows), (centre + margin) / (1 + z * z / rows)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of "both are right equally often": McNemar's test (1947, Psychometrika 12:153-157), exact.

    Rows that both get right, or both wrong, say nothing. Of the others, each is as likely to be either's as a coin is
    to fall on either side; the binomial distribution gives the chance of so uneven a share or a more uneven one.

    Args:
        only_first: rows that the first alone gets right.
        only_second: rows that the second alone gets right.
    """
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))
