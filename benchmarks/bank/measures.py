"""What a point says of answers beside their score: losses and shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

TAGS = "token-classification"
"""The kind whose answers are several a row."""


class LossProbe:
    """A task that also adds up the loss of the rows it answers, by fold.

    `evaluate` asks for the answers of each fold in turn, batch by batch; the loss of a batch is a mean over its rows,
    or over its words that have a label.
    """

    def __init__(self, task: Any, folds: int) -> None:
        self._task, self._folds, self._calls = task, folds, 0
        self._sums, self._counts = [0.0] * folds, [0] * folds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def answer(self, outputs: Any, batch: Any) -> Any:
        """The task's answer."""
        fold, labels = self._calls % self._folds, batch["labels"]
        of_words = labels.ndim > 1 and not labels.is_floating_point()
        count = int((labels >= 0).sum()) if of_words else len(labels)
        self._sums[fold] += float(self._task.loss(outputs, batch)) * count
        self._counts[fold] += count
        self._calls += 1
        return self._task.answer(outputs, batch)

    @property
    def losses(self) -> list[float]:
        """The mean loss of each fold's rows."""
        return [total / max(1, count) for total, count in zip(self._sums, self._counts, strict=True)]


def brier(answers: np.ndarray, truths: np.ndarray) -> float | None:
    """The mean over rows of the squared distance to the truth (Brier 1950); None where answers are not chances."""
    if answers.ndim != 2 or truths.dtype == object:
        return None
    right = truths if truths.ndim == 2 else np.eye(answers.shape[1])[truths]
    return float(((answers - right) ** 2).sum(axis=1).mean())


def _kinds(task: Any, answers: np.ndarray, truths: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """What was answered and what is true as one dimension of things that are alike or not; None for numbers."""
    if task.kind == TAGS:
        given = answers[..., 0].ravel()
        return given[given >= 0], np.concatenate([*truths])
    if answers.ndim == 1:
        return None
    if truths.ndim == 2:  # sets of labels
        return tuple(np.unique(rows, axis=0, return_inverse=True)[1].ravel() for rows in (task.given(answers), truths))
    return task.given(answers), truths


def _largest(things: np.ndarray) -> float:
    return float(np.unique(things, return_counts=True)[1].max() / len(things)) if len(things) else 0.0


def largest_share(task: Any, answers: np.ndarray, truths: np.ndarray) -> float | None:
    """The share of the most frequent answer; None where answers are numbers."""
    found = _kinds(task, answers, truths)
    return None if found is None else _largest(found[0])


def halves(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the two halves of the test rows, each in order."""
    drawn = np.random.default_rng(seed).permutation(rows)
    return np.sort(drawn[: rows // 2]), np.sort(drawn[rows // 2 :])


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Answers as they are kept: in half precision, in as many places as the longest row of all has."""
    widest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    room = [
        np.pad(part, [(0, 0), *((0, most - size) for most, size in zip(widest, part.shape[1:], strict=True))],
               constant_values=-1)
        for part in parts
    ]  # fmt: skip
    return np.concatenate(room).astype(np.float16)
