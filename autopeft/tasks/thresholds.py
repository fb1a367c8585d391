"""From which probability on a label is given, chosen on answers to rows that the model was not trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

GRID = 1 / (1 + np.exp(-np.linspace(-7, 7, 71)))
"""What thresholds are chosen from: even steps of log-odds, as probabilities of rare labels are all small. The one in
the middle is a half."""

FEWEST = 10
"""Rows that a label must have for a threshold of its own: of fewer, chance decides."""


def shared(answers: np.ndarray, score: Callable[[np.ndarray], float]) -> float:
    """The threshold for all labels.

    Args:
        answers: probabilities, `[rows, labels]`.
        score: of the labels that are given, bool `[rows, labels]`; more is better.
    """
    return float(GRID[_middle_of_best(np.array([score(answers >= threshold) for threshold in GRID]))])


def own(answers: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """The threshold of each label that gives it the best F1, `[labels]`; NaN where it has too few rows to tell.

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
