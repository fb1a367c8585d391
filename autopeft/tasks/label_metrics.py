"""Metrics of rows that have any number of labels each, for many draws of the rows at once.

Each function takes the labels that the rows are given and those that are true of them, `[rows, labels]`, and how often
each draw has each row, `[draws, rows]`; it returns a score for each draw. They are scikit-learn's metrics of the same
name with `zero_division=0`, over the labels that a draw has: a mean over labels leaves out one that is neither true of
any row nor given to any, as in the metrics of single labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from autopeft.tasks.metric import Metric
from autopeft.tasks.metrics import over

Counted = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def f1_micro(given: np.ndarray, truths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """F1 over all pairs of a row and a label."""
    return over(2 * counts @ (given & truths).sum(1), counts @ (given.sum(1) + truths.sum(1)))


def f1_macro(given: np.ndarray, truths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean of each label's F1."""
    below = counts @ (given.astype(float) + truths)
    return over(over(2 * counts @ (given & truths).astype(float), below).sum(1), (below > 0).sum(1))


def f1_samples(given: np.ndarray, truths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean of each row's F1; a row that has no label and is given none counts 0, as in scikit-learn."""
    return over(counts @ over(2 * (given & truths).sum(1), given.sum(1) + truths.sum(1)), counts.sum(1))


def subset_accuracy(given: np.ndarray, truths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The share of rows that are given their labels and no others."""
    return over(counts @ (given == truths).all(1), counts.sum(1))


def hamming(given: np.ndarray, truths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The share of pairs of a row and a label that are predicted right: 1 minus the Hamming loss."""
    return over(counts @ (given == truths).mean(1), counts.sum(1))


def average_precision(given: np.ndarray, truths: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean over labels of the area under precision and recall; labels that no row has are left out."""
    total, known = np.zeros(len(counts)), np.zeros(len(counts))
    for scores, true in zip(given.T, truths.T, strict=True):
        order = np.argsort(-scores, kind="stable")
        last = np.append(np.diff(scores[order]) != 0, True)  # of rows with the same score
        drawn = counts[:, order]
        hits, rows = (np.cumsum(some, axis=1)[:, last] for some in (drawn * true[order], drawn))
        gained = np.diff(hits, axis=1, prepend=0)
        total += over((gained * over(hits, rows)).sum(1), hits[:, -1])
        known += hits[:, -1] > 0
    return over(total, known)


def score(metric: Counted, given: np.ndarray, truths: np.ndarray) -> float:
    """A metric of the rows as they are."""
    return float(metric(given, truths.astype(bool), np.ones((1, len(truths))))[0])


def _of_lists(answers: Sequence[str], truths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are written as lists of labels, as `[rows, labels]`, with all labels that occur."""
    lists = {text: _listed(text) for text in {*answers, *truths}}
    places = {label: place for place, label in enumerate(sorted({str(one) for few in lists.values() for one in few}))}
    vectors = {text: np.isin(np.arange(len(places)), [places[str(one)] for one in few]) for text, few in lists.items()}
    given, true = (np.array([vectors[text] for text in texts], bool) for texts in (answers, truths))
    return given, true


def _of_numbers(answers: Sequence[str], truths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are written as a number for each label, as `[rows, labels]`."""
    given, true = (np.array([_listed(text) for text in texts], np.float64) for texts in (answers, truths))
    return given, true.astype(bool)


def _listed(text: str) -> list[object]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError(f"it must hold lists, but holds {text[:40]}")
    return found


METRICS: dict[str, Counted] = {
    "f1_micro": f1_micro,
    "f1_macro": f1_macro,
    "f1_samples": f1_samples,
    "average_precision": average_precision,
    "subset_accuracy": subset_accuracy,
    "hamming": hamming,
}

OF_SCORES = "average_precision"
"""It needs the probabilities; the others need the labels that are given."""

OF_NUMBERS = (OF_SCORES, "hamming")
"""These need a number for each label, even for one that no row has; for the others the rows' labels are enough."""


def metrics() -> dict[str, Metric]:
    """By name, the default first."""
    return {name: _metric(name) for name in METRICS}


def _metric(name: str) -> Metric:
    function, read = METRICS[name], _of_numbers if name in OF_NUMBERS else _of_lists

    def of_draws(answers: Sequence[str], truths: Sequence[str], counts: np.ndarray) -> np.ndarray:
        given, true = read(answers, truths)
        return function(given if name == OF_SCORES else given.astype(bool), true, counts)

    def of_written(answers: Sequence[str], truths: Sequence[str]) -> float:
        return float(of_draws(answers, truths, np.ones((1, len(truths))))[0])

    return Metric(partial(score, function), of_written, name == "subset_accuracy", of_draws=of_draws)
