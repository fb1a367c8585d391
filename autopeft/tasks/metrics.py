"""Classification metrics by scikit-learn's names. All are scores: higher is better."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from autopeft.common.exceptions import SpecError, brief, nearest

if TYPE_CHECKING:
    from collections.abc import Callable


AVERAGES = ("macro", "micro", "weighted")
ALIASES = {"matthews": "matthews_corrcoef"}


def names() -> tuple[str, ...]:
    """The metrics that a study file may name."""
    averaged = (f"{metric}_{average}" for metric in ("f1", "precision", "recall") for average in AVERAGES)
    return ("accuracy", "balanced_accuracy", "cohen_kappa", "matthews_corrcoef", *ALIASES, *averaged)


def scorer(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """The function `(labels [rows], predictions [rows]) -> score` behind a metric's name.

    Raises:
        SpecError: the name is unknown.
    """
    from sklearn import metrics

    if name not in names():
        raise SpecError(f'`metric` in [validation] is "{brief(name)}", which is not known; {nearest(name, names())}')
    name = ALIASES.get(name, name)
    stem, _, average = name.rpartition("_")
    if average in AVERAGES:
        function = partial(getattr(metrics, f"{stem}_score"), average=average, zero_division=0)
    else:
        function = getattr(metrics, name if name == "matthews_corrcoef" else f"{name}_score")

    def score(labels: np.ndarray, predictions: np.ndarray) -> float:
        found = float(function(labels, predictions))
        return 0.0 if math.isnan(found) else found  # Cohen's kappa where all rows have, and are given, the same label

    return score


def from_counts(metric: str, hits: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """A metric from the sums of many confusion matrices at once; scikit-learn's functions take one at a time.

    Args:
        metric: one of `names()`.
        hits: rows of each class that were predicted as that class, `[..., classes]`.
        actual: rows of each class, the same shape.
        predicted: rows that were predicted as each class, the same shape.

    Returns:
        Scores `[...]`. As in scikit-learn, a macro average leaves out a class that is neither true of any row nor
        predicted, and a division by zero gives 0.
    """
    rows, right = actual.sum(-1), hits.sum(-1)
    if metric == "accuracy":
        return over(right, rows)
    if metric == "balanced_accuracy":
        there = actual > 0
        return np.asarray(over(hits, actual).sum(-1) / there.sum(-1))
    chance = (actual * predicted).sum(-1)
    if metric == "cohen_kappa":
        return over(right * rows - chance, rows**2 - chance)
    if ALIASES.get(metric, metric) == "matthews_corrcoef":
        spread = (rows**2 - (actual**2).sum(-1)) * (rows**2 - (predicted**2).sum(-1))
        return over(right * rows - chance, np.sqrt(spread))
    kind, _, average = metric.rpartition("_")
    if average not in AVERAGES:
        raise ValueError(f'the metric "{metric}" cannot be computed from counts; extend `from_counts`.')
    below = {"precision": predicted, "recall": actual, "f1": (actual + predicted) / 2}[kind]
    if average == "micro":
        return over(right, below.sum(-1))
    weights = actual if average == "weighted" else ((actual > 0) | (predicted > 0)).astype(float)
    return np.asarray((over(hits, below) * weights).sum(-1) / weights.sum(-1))


def over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, element by element; 0 where the divisor is 0."""
    share: np.ndarray = np.divide(above, below, out=np.zeros(np.shape(below)), where=below != 0)
    return share
