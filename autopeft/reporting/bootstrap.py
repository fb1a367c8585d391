"""Intervals for the score of predictions: the rows are drawn anew, with replacement, many times (Efron 1979)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopeft.reporting.statistics import CONFIDENCE, Difference, wilson
from autopeft.tasks.metrics import ALIASES, AVERAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RESAMPLES = 2000

LARGEST = 10**7
"""Numbers in memory at once: resamples times cells."""


class Bootstrap:
    """Scores of several predictors on the same resampled rows, so that their differences are paired.

    Rows with the same label and the same predictions are one cell; how often each cell is drawn is multinomial, which
    is the same as drawing rows one by one and much cheaper.

    Args:
        metric: one of `autopeft.tasks.metrics.names()`.
        labels: of the rows.
        predictions: by the predictor's name, one for each row.
        seed: of the draws; the same seed gives the same intervals.
    """

    def __init__(
        self, metric: str, labels: Sequence[str], predictions: Mapping[str, Sequence[str]], seed: int = 0
    ) -> None:
        classes, codes = np.unique(np.array([labels, *predictions.values()]), return_inverse=True)
        cells, counts = np.unique(codes.reshape(1 + len(predictions), -1), axis=1, return_counts=True)
        generator, is_class = np.random.default_rng(seed), np.eye(len(classes))
        shares, some = counts / counts.sum(), max(1, LARGEST // len(counts))
        parts: dict[str, list[np.ndarray]] = {name: [] for name in predictions}
        for start in range(0, 1 + RESAMPLES, some):
            drawn = generator.multinomial(counts.sum(), shares, min(some, 1 + RESAMPLES - start)).astype(float)
            if start == 0:
                drawn[0] = counts  # what was observed
            actual = drawn @ is_class[cells[0]]
            for kept, own in zip(parts.values(), cells[1:], strict=True):
                hits = drawn @ (is_class[own] * (own == cells[0])[:, None])
                kept.append(from_counts(metric, hits, actual, drawn @ is_class[own]))
        self._scores = {name: np.concatenate(kept) for name, kept in parts.items()}

    def score(self, name: str) -> float:
        """The score on the rows as they are."""
        return float(self._scores[name][0])

    def interval(self, name: str) -> tuple[float, float]:
        """Confidence interval of a score: the percentiles of its resamples."""
        return _percentiles(self._scores[name][1:])

    def difference(self, first: str, second: str) -> Difference:
        """By how much the first scores above the second; p is twice the share of resamples on the other side of 0."""
        differences = self._scores[first] - self._scores[second]
        drawn = differences[1:]
        # One is added to either count: a finite number of resamples cannot show a chance of nothing.
        tail = min(np.sum(drawn <= 0), np.sum(drawn >= 0))
        return Difference(float(differences[0]), *_percentiles(drawn), min(1.0, 2 * (1 + int(tail)) / (1 + len(drawn))))


def interval_of(metric: str, labels: Sequence[str], predictions: Sequence[str]) -> tuple[float, float]:
    """Confidence interval of one score: Wilson's for accuracy, the bootstrap's for any other metric."""
    if metric == "accuracy":
        return wilson(sum(map(str.__eq__, labels, predictions)), len(labels))
    return Bootstrap(metric, labels, {"": predictions}).interval("")


def from_counts(metric: str, hits: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """A metric from what a confusion matrix holds, for many at once; scikit-learn's own functions take one at a time.

    Args:
        metric: one of `autopeft.tasks.metrics.names()`.
        hits: rows of each class that were predicted as it, `[..., classes]`.
        actual: rows of each class, the same shape.
        predicted: rows that were predicted as each class, the same shape.

    Returns:
        Scores `[...]`. As in scikit-learn, a class that is neither there nor predicted is left out of a macro average,
        and what would be divided by zero is 0.
    """
    rows, right = actual.sum(-1), hits.sum(-1)
    if metric == "accuracy":
        return _over(right, rows)
    if metric == "balanced_accuracy":
        there = actual > 0
        return np.asarray(_over(hits, actual).sum(-1) / there.sum(-1))
    chance = (actual * predicted).sum(-1)
    if metric == "cohen_kappa":
        return _over(right * rows - chance, rows**2 - chance)
    if ALIASES.get(metric, metric) == "matthews_corrcoef":
        spread = (rows**2 - (actual**2).sum(-1)) * (rows**2 - (predicted**2).sum(-1))
        return _over(right * rows - chance, np.sqrt(spread))
    kind, _, average = metric.rpartition("_")
    if average not in AVERAGES:
        raise ValueError(f'the metric "{metric}" cannot be computed from counts; extend `from_counts`.')
    below = {"precision": predicted, "recall": actual, "f1": (actual + predicted) / 2}[kind]
    if average == "micro":
        return _over(right, below.sum(-1))
    weights = actual if average == "weighted" else ((actual > 0) | (predicted > 0)).astype(float)
    return np.asarray((_over(hits, below) * weights).sum(-1) / weights.sum(-1))


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    share: np.ndarray = np.divide(above, below, out=np.zeros(np.shape(below)), where=below != 0)
    return share


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
