"""What is answered, from the characters of the context that an answer names."""

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
        start, end: of it in the context, in characters from 0; -1 for none.
        score: how probable the model holds what it answers, in the window where that stands.
        no_answer: how probable it holds no answer.
        margin: by how much the best span's score exceeds that of no answer, as sums of two logits.
    """

    text: str
    start: int
    end: int
    score: float
    no_answer: float
    margin: float


class Wording:
    """Says when there is no answer.

    Args:
        unanswerable: whether a question may have none.
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
