"""Intervals for the score of predictions: the rows are resampled many times, with replacement (Efron 1979)."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import numpy as np

from autopeft.common.exceptions import SpecError
from autopeft.reporting.statistics import CONFIDENCE, LEAST, simultaneous, wilson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from autopeft.reporting.statistics import Difference
    from autopeft.tasks.metric import Metric

RESAMPLES = 2000
FEW_RESAMPLES = 500
"""For a metric that is computed again for each resample."""

SECONDS = 60.0
"""Time limit of a user's function that gives one number for all rows, over all predictors. Then draws are fewer."""
FEWEST_RESAMPLES = 100
"""Fewest resamples for an interval."""

LARGEST = 10**7
"""Most numbers in memory at once: resamples times cells."""


class Bootstrap:
    """Scores of several predictors on the same resampled rows, so that their differences are paired.

    For a metric that depends only on counts of classes, rows with the same label and the same predictions are one cell.
    The counts of the cells are drawn from a multinomial, which is the same as drawing rows one by one and much cheaper.

    Args:
        metric: what is scored.
        truths: the rows' true answers, as text.
        predictions: by the predictor's name, one for each row.
        seed: of the draws; the same seed gives the same intervals.

    Attributes:
        told: the end of a sentence: how many draws a user's function was called for, or why there is no interval; ""
            for any other metric.

    Raises:
        SpecError: a user's function fails on the original rows.
    """

    def __init__(
        self, metric: Metric, truths: Sequence[str], predictions: Mapping[str, Sequence[str]], seed: int = 0
    ) -> None:
        self.told = ""
        generator = np.random.default_rng(seed)
        if metric.of_rows:
            self._scores = self._by_function(metric, truths, predictions, generator)
            return
        draw = self._by_class if metric.of_counts else self._by_count if metric.of_draws else self._by_row
        self._scores = draw(metric, truths, predictions, generator)

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
                drawn[0] = counts  # the original rows
            actual = drawn @ is_class[cells[0]]
            for kept, own in zip(parts.values(), cells[1:], strict=True):
                hits = drawn @ (is_class[own] * (own == cells[0])[:, None])
                kept.append(metric.of_counts(hits, actual, drawn @ is_class[own]))
        return {name: np.concatenate(kept) for name, kept in parts.items()}

    @staticmethod
    def _by_count(
        metric: Metric, truths: Sequence[str], predictions: Mapping[str, Sequence[str]], generator: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Counts of the rows are drawn, and all draws are scored at once."""
        assert metric.of_draws
        parts: dict[str, list[np.ndarray]] = {name: [] for name in predictions}
        for drawn in _drawn(len(truths), max(1, LARGEST // len(truths)), generator):
            for name, answers in predictions.items():
                parts[name].append(metric.of_draws(answers, truths, drawn.astype(float)))
        return {name: np.concatenate(found) for name, found in parts.items()}

    def _by_function(
        self,
        metric: Metric,
        truths: Sequence[str],
        predictions: Mapping[str, Sequence[str]],
        generator: np.random.Generator,
    ) -> dict[str, np.ndarray]:
        """A user's function: its scores of rows are averaged; if it gives one number, it is called for each draw."""
        assert metric.of_rows
        rows, every = len(truths), [*predictions.values()]
        whole = [metric.of_rows(answers, truths) for answers in every]
        if all(found.ndim for found in whole):
            parts = _drawn(rows, max(1, LARGEST // rows), generator)
            return dict(zip(predictions, np.stack(whole) @ np.concatenate([*parts]).T / rows, strict=True))
        scores, until = [[float(found.mean()) for found in whole]], time.monotonic() + SECONDS
        try:
            for (drawn,) in itertools.islice(_drawn(rows, 1, generator), 1, None):
                if time.monotonic() > until:
                    break
                taken = np.repeat(np.arange(rows), drawn).tolist()
                some = [[column[row] for row in taken] for column in (truths, *every)]
                scores.append([float(metric.of_rows(answers, some[0]).mean()) for answers in some[1:]])
        except SpecError as error:
            del scores[1:]
            self.told = f"has no interval, because its function fails on some draws of the rows ({error})"
        else:
            count = len(scores) - 1
            self.told = f"was called for {count} draws of the rows, one after another, for its intervals"
            if count < FEWEST_RESAMPLES:
                del scores[1:]
                self.told = (
                    f"has no interval, because its function finished only {count} draws of the rows in {SECONDS:.0f} s"
                )
        return dict(zip(predictions, np.array(scores).T, strict=True))

    @staticmethod
    def _by_row(
        metric: Metric, truths: Sequence[str], predictions: Mapping[str, Sequence[str]], generator: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The rows themselves are drawn, and scored one draw after another."""
        true, rows = np.asarray(truths), len(truths)
        draws = [np.arange(rows), *(generator.integers(0, rows, rows) for _ in range(FEW_RESAMPLES))]
        made = {name: np.asarray(answers) for name, answers in predictions.items()}
        return {
            name: np.array([metric.of_written(answers[drawn], true[drawn]) for drawn in draws])
            for name, answers in made.items()
        }

    @property
    def draws(self) -> int:
        """The number of resamples; 0 where a user's function has no intervals, and `told` says why."""
        return min(len(scores) for scores in self._scores.values()) - 1

    def score(self, name: str) -> float:
        """The score on the original rows."""
        return float(self._scores[name][0])

    def interval(self, name: str) -> tuple[float, float]:
        """Confidence interval of a score: the percentiles of its resamples. There must be some (`draws`)."""
        return _percentiles(self._scores[name][1:])

    def differences(self, first: str, others: Sequence[str]) -> list[Difference]:
        """How far the first scores above each of the others, allowing for the number of comparisons.

        The scatter of the draws around the observed difference shows how large a difference can get by chance. From
        each draw, the largest |deviation / standard error| of all comparisons counts, as in `max_t`, so that p-values
        and intervals agree (bootstrap of studentized differences; Romano & Wolf 2005, JASA 100:94-108).

        There must be some draws.
        """
        table = np.stack([self._scores[first] - self._scores[other] for other in others])
        observed, drawn = table[:, 0], table[:, 1:]
        errors = drawn.std(1)
        scatter = np.abs(drawn - observed[:, None]) / np.where(errors < LEAST, np.inf, errors)[:, None]
        return simultaneous(observed.tolist(), errors.tolist(), np.sort(scatter.max(0)))


def interval_of(metric: Metric, truths: Sequence[str], predictions: Sequence[str]) -> tuple[float, float] | None:
    """Confidence interval of one score: Wilson's for a share of rows, the bootstrap's for any other metric.

    None where a user's function fails or takes too long.
    """
    if metric.proportion:
        return wilson(sum(map(str.__eq__, truths, predictions)), len(truths))
    try:
        bootstrap = Bootstrap(metric, truths, {"": predictions})
    except SpecError:
        return None
    return bootstrap.interval("") if bootstrap.draws else None


def _drawn(rows: int, some: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each row is drawn, int64 `[draws, rows]`, `some` draws at a time; the first draw has each row once."""
    for start in range(0, 1 + FEW_RESAMPLES, some):
        drawn = generator.multinomial(rows, np.full(rows, 1 / rows), min(some, 1 + FEW_RESAMPLES - start))
        if start == 0:
            drawn[0] = 1  # the original rows
        yield drawn


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
