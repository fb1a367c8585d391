"""Whether a difference is real, how sure a score is, and which cost is worth it: textbook rules, in numpy and scipy."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri  # scipy.stats, which wraps it, takes seconds to import

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
"""Level of every interval; a difference is called real if its p-value is at most one minus this."""


@dataclass(frozen=True)
class Difference:
    """How much one score exceeds another, and how sure that is.

    Attributes:
        mean: the difference itself.
        low, high: ends of its confidence interval.
        p: two-sided p-value of "there is no difference".
    """

    mean: float
    low: float
    high: float
    p: float


TIED = 0.00005
"""A smaller difference of scores is shown as 0.0000, and called a tie."""

LEAST = 1e-12
"""A smaller difference or standard error is zero up to rounding."""

DRAWS = 19_999
"""Number of draws of the largest of several zero differences: ends of intervals are then exact to about 1%."""


def max_t(
    scores: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]], pooled: Sequence[int] = ()
) -> list[Difference]:
    """Compare candidates that were scored on the same k folds, each pair as one of several comparisons.

    A fold's score is modelled as a part of the candidate, a part of the fold, and noise. The noise's variance s² is
    estimated from all n `pooled` candidates, with (n - 1)(k - 1) degrees of freedom. With d the mean of a pair's
    differences, t = d / sqrt(2 s² (1/k + n_test/n_train)), and in k-fold cross-validation n_test/n_train = 1/(k - 1).
    That term is the correction for training sets that share most of their rows (Nadeau & Bengio 2003, Machine Learning
    52:239-281); for a single pair this is their corrected resampled t-test. P-values and intervals are both from the
    distribution of the largest |t| of all pairs when no candidates differ (single-step max-t; Dunnett 1955, JASA
    50:1096-1121; Hothorn et al. 2008, Biometrical Journal 50:346-363), so they agree: p is at most one minus the
    confidence where the interval is on one side of 0.

    Args:
        scores: of each candidate on each fold, `[candidates, folds]`.
        pairs: places of the candidates that are compared.
        pooled: places of those whose noise counts; default: all. Deviations of collapsed folds are not noise.

    Returns:
        The adjusted difference of each pair; empty where it cannot be computed: fewer than two folds or candidates, or
        no noise.
    """
    table = np.asarray(scores, float)
    if not pairs or table.ndim < 2 or table.shape[1] < 2:
        return []
    noise = table[list(pooled)] if len(pooled) > 1 else table
    rest = noise - noise.mean(1, keepdims=True) - noise.mean(0) + noise.mean()
    degrees, folds = (len(noise) - 1) * (table.shape[1] - 1), table.shape[1]
    error = math.sqrt(2 * float((rest**2).sum()) / max(degrees, 1) * (1 / folds + 1 / (folds - 1)))
    if error < LEAST:
        return []
    largest, means = _largest(len(table), tuple(pairs), degrees), table.mean(1)
    return simultaneous([float(means[first] - means[second]) for first, second in pairs], [error] * len(pairs), largest)


def simultaneous(means: Sequence[float], errors: Sequence[float], largest: np.ndarray) -> list[Difference]:
    """Differences that are judged together, with p-values and intervals that agree (single-step max-t).

    Args:
        means: the differences.
        errors: their standard errors; a difference with error zero is certain.
        largest: draws of the largest |difference / error| if all true differences are zero, in order.
    """
    beyond = int((1 - CONFIDENCE) * (len(largest) + 1))
    found = []
    for mean, error in zip(means, errors, strict=True):
        margin, above = error * float(largest[-beyond]), len(largest)
        if abs(mean) >= LEAST:
            above -= int(np.searchsorted(largest, abs(mean) / error)) if error >= LEAST else len(largest)
        found.append(Difference(mean, mean - margin, mean + margin, (above + 1) / (len(largest) + 1)))
    return found


@functools.lru_cache(maxsize=64)
def _largest(candidates: int, pairs: tuple[tuple[int, int], ...], degrees: int) -> np.ndarray:
    """Draws of the largest |t| of these pairs if no candidates differ, in order."""
    generator = np.random.default_rng(0)
    means = generator.standard_normal((DRAWS, candidates))
    first, second = np.transpose(pairs)
    spread = np.sqrt(2 * generator.chisquare(degrees, DRAWS) / degrees)
    return np.sort(np.abs(means[:, first] - means[:, second]).max(1) / spread)


def in_a_word(lead: float, real: bool) -> str:
    """The result of a test of a lead: a tie, significant, or inconclusive."""
    return "significant" if real else "tie" if abs(lead) < TIED else "inconclusive"


def standard_error(scores: Sequence[float]) -> float:
    """The standard error of a mean of fold scores: standard deviation (k - 1) over sqrt(k); NaN for fewer than two."""
    return float(np.std(scores, ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan


def one_standard_error(scores: Sequence[float], errors: Sequence[float], costs: Sequence[float]) -> int:
    """Position of the cheapest candidate whose score is within one standard error of the best one's.

    The rule of Breiman, Friedman, Olshen & Stone 1984 (Classification and Regression Trees, section 3.4.3): a candidate
    within the noise of the best is as good, so simplicity decides. At equal cost the better score decides.
    """
    best = max(range(len(scores)), key=lambda i: (scores[i], -costs[i]))
    error = 0.0 if math.isnan(errors[best]) else errors[best]
    within = [i for i, score in enumerate(scores) if score >= scores[best] - error]
    return min(within, key=lambda i: (costs[i], -scores[i]))


def pareto_front(scores: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Positions of the candidates that no other beats with a higher score at no more cost, or an equal one for less.

    They are in order of cost. Of candidates that are equal in both, only the first one is given.
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
