"""Metrics of one label for each row that look at more than which label is the most probable, or at how far off it is.

All are scores: higher is better. A mean over labels leaves out a label that no row has, `roc_auc` also one that every
row has.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from autopeft.tasks.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Scorer = Callable[[np.ndarray, np.ndarray], float]

CHANCE = 0.5
"""The area under ROC of guessing."""

TOP = (2, 3, 5)
"""How many of the most probable labels count, of which one must be right."""

KAPPA = "quadratic_kappa"


def roc_auc(truths: np.ndarray, answers: np.ndarray) -> float:
    """Mean area under the ROC curve of each label against all others; with two labels, that of the last one."""
    from sklearn.metrics import roc_auc_score

    found = [roc_auc_score(own, scores) for own, scores in _one_by_one(truths, answers) if own.any() and not own.all()]
    return float(np.mean(found)) if found else CHANCE


def average_precision(truths: np.ndarray, answers: np.ndarray) -> float:
    """Mean area under precision and recall of each label; with two labels, that of the last one."""
    from sklearn.metrics import average_precision_score

    found = [average_precision_score(own, scores) for own, scores in _one_by_one(truths, answers) if own.any()]
    return float(np.mean(found)) if found else 0.0


def neg_log_loss(truths: np.ndarray, answers: np.ndarray) -> float:
    """Mean logarithm of the probability of the right label, in float64, as a report computes it from the file again."""
    right = _of_right(truths, answers).astype(np.float64)
    return float(np.log(right.clip(np.finfo(np.float32).tiny)).mean())


def neg_brier_score(truths: np.ndarray, answers: np.ndarray) -> float:
    """Negative squared distance of the probabilities from the truth (Brier 1950).

    Half of it for two labels, as in scikit-learn.
    """
    off = answers.astype(np.float64) - (np.arange(answers.shape[1]) == truths[:, None])
    return -float((off**2).sum(1).mean()) / (2 if answers.shape[1] == 2 else 1)


def top(truths: np.ndarray, answers: np.ndarray, most: int) -> float:
    """Share of rows whose label is among this many most probable ones; of equal ones, the first come first."""
    right = _of_right(truths, answers)[:, None]
    before = np.arange(answers.shape[1]) < truths[:, None]
    ahead = (answers > right) | ((answers == right) & before)
    return float((ahead.sum(1) < most).mean())


def of_last(name: str, truths: np.ndarray, answers: np.ndarray) -> float:
    """F1, precision or recall of the last of two labels, which is the positive one."""
    from sklearn import metrics

    given = answers.argmax(axis=-1)
    return float(getattr(metrics, f"{name}_score")(truths == 1, given == 1, zero_division=0))


def quadratic_kappa(truths: Sequence[str], answers: Sequence[str]) -> float:
    """Cohen's kappa with quadratic weights. Labels are in the order of numbers, else of the alphabet."""
    from sklearn.metrics import cohen_kappa_score

    known = sorted({*truths, *answers}, key=_order)
    if len(known) < 2:
        return 0.0
    places = {label: place for place, label in enumerate(known)}
    if all(_is_number(label) for label in known):  # a label that no row has leaves a gap
        places = {label: round(float(label)) for label in known} if _whole(known) else places
    made, true = ([places[label] for label in few] for few in (answers, truths))
    found = cohen_kappa_score(
        true, made, weights="quadratic", labels=[*range(min(places.values()), max(places.values()) + 1)]
    )
    return 0.0 if np.isnan(found) else float(found)


def _order(label: str) -> tuple[bool, float, str]:
    return (False, float(label), label) if _is_number(label) else (True, 0.0, label)


def _is_number(label: str) -> bool:
    try:
        return bool(np.isfinite(float(label)))
    except ValueError:
        return False


def _whole(labels: Sequence[str], most: int = 1000) -> bool:
    """Whether labels are whole numbers in a small range."""
    numbers = [float(label) for label in labels]
    return all(number.is_integer() for number in numbers) and max(numbers) - min(numbers) <= most


def _of_right(truths: np.ndarray, answers: np.ndarray) -> np.ndarray:
    found: np.ndarray = answers[np.arange(len(truths)), truths]
    return found


def _one_by_one(truths: np.ndarray, answers: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    labels = range(answers.shape[1])
    return [(truths == label, answers[:, label]) for label in (labels[-1:] if len(labels) == 2 else labels)]


OF_SCORES: dict[str, Scorer] = {
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "neg_log_loss": neg_log_loss,
    "neg_brier_score": neg_brier_score,
    **{f"top_{most}_accuracy": partial(top, most=most) for most in TOP},
}
"""These need the probabilities of all labels."""

OF_LAST: dict[str, Scorer] = {name: partial(of_last, name) for name in ("f1", "precision", "recall")}
"""These need which of two labels is given. As GLUE scores MRPC and QQP."""


def written(answers: np.ndarray, labels: Sequence[str]) -> list[str]:
    """The probability of each label, as JSON."""
    rows = answers.astype(float).tolist()
    return [json.dumps(dict(zip(labels, row, strict=True)), ensure_ascii=False) for row in rows]


def _read(answer: str) -> dict[str, float]:
    """What `written` wrote; a label alone, as truths are written, has probability 1."""
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {answer: 1.0}


def metrics() -> dict[str, Metric]:
    """By name."""
    return {**{name: _of_scores(scorer) for name, scorer in (OF_SCORES | OF_LAST).items()}, KAPPA: _kappa()}


def _of_scores(scorer: Scorer) -> Metric:
    def of_draws(answers: Sequence[str], truths: Sequence[str], counts: np.ndarray) -> np.ndarray:
        rows = [*map(_read, answers)]
        labels = [*dict.fromkeys([label for row in rows for label in row] + sorted({*truths}))]  # as `written` has them
        places = {label: place for place, label in enumerate(labels)}
        made = np.array([[row.get(label, 0.0) for label in labels] for row in rows], np.float64)
        return _drawn(scorer, np.array([places[label] for label in truths]), made, counts)

    return Metric(lambda answers, truths: scorer(truths, answers), _once(of_draws), of_draws=of_draws)


def _kappa() -> Metric:
    def of_draws(answers: Sequence[str], truths: Sequence[str], counts: np.ndarray) -> np.ndarray:
        return _drawn(quadratic_kappa, np.asarray(truths), np.asarray(answers), counts)

    def of_places(answers: np.ndarray, truths: np.ndarray) -> float:
        return quadratic_kappa([*map(str, truths)], [*map(str, answers.argmax(-1))])

    return Metric(of_places, _once(of_draws), of_draws=of_draws, written=True)  # labels are ordered by their names


def _once(of_draws: Callable[[Sequence[str], Sequence[str], np.ndarray], np.ndarray]) -> Callable[..., float]:
    """The metric of the rows as they are."""
    return lambda answers, truths: float(of_draws(answers, truths, np.ones((1, len(truths))))[0])


def _drawn(score: Callable[..., float], truths: np.ndarray, answers: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The metric of each draw, given how often it has each row."""
    rows = (np.repeat(np.arange(len(truths)), drawn.astype(int)) for drawn in counts)
    return np.array([score(truths[some], answers[some]) for some in rows])
