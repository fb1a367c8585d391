"""Intervals for the score of predictions: the rows are drawn anew, with replacement, many times (Efron 1979)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopeft.reporting.statistics import CONFIDENCE, Difference, wilson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.tasks.metric import Metric

RESAMPLES = 2000
FEW_RESAMPLES = 500
"""Of a metric that is worked out anew for each."""

LARGEST = 10**7
"""Numbers in memory at once: resamples times cells."""


class Bootstrap:
    """Scores of several predictors on the same resampled rows, so that their differences are paired.

    Of a metric that classes and counts decide, rows with the same label and the same predictions are one cell; how
    often each cell is drawn is multinomial, which is the same as drawing rows one by one and much cheaper.

    Args:
        metric: what is scored.
        truths: of the rows, as they are written.
        predictions: by the predictor's name, one for each row.
        seed: of the draws; the same seed gives the same intervals.
    """

    def __init__(
        self, metric: Metric, truths: Sequence[str], predictions: Mapping[str, Sequence[str]], seed: int = 0
    ) -> None:
        draw = self._by_class if metric.of_counts else self._by_count if metric.of_draws else self._by_row
        self._scores = draw(metric, truths, predictions, np.random.default_rng(seed))

    @staticmethod
    def _by_class(
        metric: Metric, truths: Sequence[str], predictions: Mapping[str, Sequence[str]], generator: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Rows with the same truth and the same answers are one cell, and its count is drawn."""
        assert metric.of_counts
        classes, codes = np.unique(np.array([truths, *predictions.values()]), return_inverse=True)
        cells, counts = np.unique(codes.reshape(1 + len(predictions), -1), axis=1, return_counts=True)
        is_class = np.eye(len(classes))
        shares, some = counts / counts.sum(), max(1, LARGEST // len(counts))
        parts: dict[str, list[np.ndarray]] = {name: [] for name in predictions}
        for start in range(0, 1 + RESAMPLES, some):
            drawn = generator.multinomial(counts.sum(), shares, min(some, 1 + RESAMPLES - start)).astype(float)
            if start == 0:
                drawn[0] = counts  # what was observed
            actual = drawn @ is_class[cells[0]]
            for kept, own in zip(parts.values(), cells[1:], strict=True):
                hits = drawn @ (is_class[own] * (own == cells[0])[:, None])
                kept.append(metric.of_counts(hits, actual, drawn @ is_class[own]))
        return {name: np.concatenate(kept) for name, kept in parts.items()}

    @staticmethod
    def _by_count(
        metric: Metric, truths: Sequence[str], predictions: Mapping[str, Sequence[str]], generator: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """How often each row is drawn, which is scored for all draws at once."""
        assert metric.of_draws
        rows, parts = len(truths), {name: list[np.ndarray]() for name in predictions}
        some = max(1, LARGEST // rows)
        for start in range(0, 1 + FEW_RESAMPLES, some):
            drawn = generator.multinomial(rows, np.full(rows, 1 / rows), min(some, 1 + FEW_RESAMPLES - start))
            if start == 0:
                drawn[0] = 1  # what was observed
            for name, answers in predictions.items():
                parts[name].append(metric.of_draws(answers, truths, drawn.astype(float)))
        return {name: np.concatenate(found) for name, found in parts.items()}

    @staticmethod
    def _by_row(
        metric: Metric, truths: Sequence[str], predictions: Mapping[str, Sequence[str]], generator: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The rows themselves are drawn, and scored one draw after the other."""
        true, rows = np.asarray(truths), len(truths)
        draws = [np.arange(rows), *(generator.integers(0, rows, rows) for _ in range(FEW_RESAMPLES))]
        made = {name: np.asarray(answers) for name, answers in predictions.items()}
        return {
            name: np.array([metric.of_written(answers[drawn], true[drawn]) for drawn in draws])
            for name, answers in made.items()
        }

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


def interval_of(metric: Metric, truths: Sequence[str], predictions: Sequence[str]) -> tuple[float, float]:
    """Confidence interval of one score: Wilson's for a share of rows, the bootstrap's for any other metric."""
    if metric.proportion:
        return wilson(sum(map(str.__eq__, truths, predictions)), len(truths))
    return Bootstrap(metric, truths, {"": predictions}).interval("")


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
