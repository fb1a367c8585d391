"""Scores of a language model by how probable it finds the text that it should write; higher is better."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np

from autopeft.tasks.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LOSS, HITS, TOKENS = range(3)
"""What is known about each row: the sum of its tokens' losses, how many are the most probable ones, and how many there
are."""

NAMES = ("loss", "hits", "tokens")
WORST = 1e32
"""The largest perplexity; a larger one is cut to it. At a loss of about 700 it would no longer be finite."""


def neg_loss(sums: np.ndarray) -> np.ndarray:
    """Mean log-probability of a token, from sums `[…, 3]`; 0 if there is no token."""
    return np.asarray(-sums[..., LOSS] / np.maximum(sums[..., TOKENS], 1))


def neg_perplexity(sums: np.ndarray) -> np.ndarray:
    """The negative exponential of the mean loss of a token."""
    return np.asarray(-np.exp(np.minimum(-neg_loss(sums), math.log(WORST))))


def token_accuracy(sums: np.ndarray) -> np.ndarray:
    """Share of tokens that the model finds the most probable ones."""
    return np.asarray(sums[..., HITS] / np.maximum(sums[..., TOKENS], 1))


def written(answers: np.ndarray) -> list[str]:
    """The sums of each row, `[rows, 3]`, as JSON."""
    return [json.dumps(dict(zip(NAMES, row, strict=True))) for row in answers.astype(float).tolist()]


def sums_in(answer: str) -> dict[str, float] | None:
    """The sums that `written` wrote of a row, by name; None if it is a text."""
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    return {name: float(found[name]) for name in NAMES} if isinstance(found, dict) and {*found} == {*NAMES} else None


def read(answer: str) -> list[float]:
    """The sums that `written` wrote; a text counts as one token that is certain."""
    return [*(sums_in(answer) or dict(zip(NAMES, (0.0, 1.0, 1.0), strict=True))).values()]


def metrics() -> dict[str, Metric]:
    """By name."""
    functions = (neg_loss, token_accuracy, neg_perplexity)
    return {function.__name__: _metric(function) for function in functions}


def _metric(function: Callable[[np.ndarray], np.ndarray]) -> Metric:
    def score(answers: np.ndarray, truths: np.ndarray) -> float:
        return float(function(answers.astype(np.float64).sum(axis=0)))

    def of_written(answers: Sequence[str], truths: Sequence[str]) -> float:
        return float(function(np.asarray([*map(read, answers)]).sum(axis=0)))

    def of_draws(answers: Sequence[str], truths: Sequence[str], counts: np.ndarray) -> np.ndarray:
        return function(counts @ np.asarray([*map(read, answers)]))

    return Metric(score, of_written, of_draws=of_draws)
