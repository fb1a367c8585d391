"""The probability from which on a label is given, chosen on answers to rows that the model was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

GRID = 1 / (1 + np.exp(-np.linspace(-7, 7, 71)))
"""The candidates for thresholds: even steps of log-odds, as probabilities of rare labels are all small. The one in the
middle is a half."""

FEWEST = 10
"""Fewest rows of a label with a threshold of its own: with fewer, chance decides."""


def shared(answers: np.ndarray, score: Callable[[np.ndarray], float]) -> float:
    """The threshold for all labels.

    Args:
        answers: probabilities, `[rows, labels]`.
        score: of the labels that are given, bool `[rows, labels]`; higher is better.
    """
    return float(GRID[_middle_of_best(np.array([score(answers >= threshold) for threshold in GRID]))])


def own(answers: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """The threshold of each label with the best F1, `[labels]`; NaN for a label with too few rows.

    Args:
        answers: probabilities, `[rows, labels]`.
        truths: bool, the same shape.
    """
    rows = truths.sum(0)
    scores = []
    for threshold in GRID:
        given = answers >= threshold
        scores.append(2 * (given & truths).sum(0) / np.maximum(given.sum(0) + rows, 1))
    best = [GRID[_middle_of_best(column)] for column in np.array(scores).T]
    return np.where(rows >= FEWEST, best, np.nan)


def _middle_of_best(scores: np.ndarray) -> int:
    places = np.flatnonzero(scores == scores.max())
    return int(places[len(places) // 2])
