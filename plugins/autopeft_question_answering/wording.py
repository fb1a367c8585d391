"""Answers in words, from the places in the context that a model gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from autopeft_question_answering.spans import END, NONE_PROBABILITY, NONE_SCORE, PROBABILITY, SCORE, START

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class Worded(NamedTuple):
    """An answer in words.

    Attributes:
        text: "" for none.
        start, end: its place in the context, in characters from 0; -1 for none.
        score: probability of what is answered, in its window.
        no_answer: probability of no answer.
        margin: by how much the best span's score exceeds that of no answer, as sums of two logits.
    """

    text: str
    start: int
    end: int
    score: float
    no_answer: float
    margin: float


class Wording:
    """Decides when there is no answer.

    Args:
        unanswerable: whether a question may have no answer.
        threshold: by how much the score of no answer must exceed that of the best span.
    """

    def __init__(self, threshold: float, *, unanswerable: bool) -> None:
        self._threshold, self._unanswerable = threshold, unanswerable

    def of(self, contexts: Sequence[str], answers: np.ndarray) -> list[Worded]:
        """Answers `[rows, WIDTH]` to questions about those contexts."""
        found = []
        for context, answer in zip(contexts, answers.tolist(), strict=True):
            margin, start, end = answer[SCORE] - answer[NONE_SCORE], int(answer[START]), int(answer[END])
            none = start == end or (self._unanswerable and -margin > self._threshold)
            place, score = ((-1, -1), NONE_PROBABILITY) if none else ((start, end), PROBABILITY)
            text = "" if none else context[start:end]
            found.append(Worded(text, *place, answer[score], answer[NONE_PROBABILITY], margin))
        return found
