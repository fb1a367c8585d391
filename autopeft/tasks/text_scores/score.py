"""A score of written texts, and the metric that is made of it for a study to maximise."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autopeft.tasks.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NOTHING = ("",)
"""The reference of a row that has none: nothing should be written."""


@dataclass(frozen=True)
class TextScore:
    """A score of written texts: higher is better, and 0 is the lowest.

    Attributes:
        of_draws: scores answers, given the references of each row, for many draws of the rows at once, given how often
            each draw has each row `[draws, rows]`. If a row has several references, the best counts; if it has none,
            nothing should have been written.
        of_row: the score of one row; None if only all rows together have a score, as with BLEU. The score of several
            rows is the mean of theirs, except with chrF, which adds up what matches before it divides.
        most: what answers that equal their references get: 1, or 100 for BLEU and chrF.
        of_rows: only of a user's function: a number for each row, `[rows]`, or one for all together, `[]`; else None.
    """

    of_draws: Callable[[Sequence[str], Sequence[Sequence[str]], np.ndarray], np.ndarray]
    of_row: Callable[[str, Sequence[str]], float] | None
    most: float = 1.0
    of_rows: Callable[[Sequence[str], Sequence[Sequence[str]]], np.ndarray] | None = None

    def of(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """The score of the rows as they are; there is at least one, and each has its own list of references.

        Raises:
            ValueError: there are no rows, or unequal numbers of answers and references.
        """
        if not answers or len(answers) != len(references):
            raise ValueError(
                "a score needs at least one answer and a list of references for each, but got "
                f"{len(answers)} answers and {len(references)} lists."
            )
        if self.of_rows:
            return float(self.of_rows(answers, references).mean())
        return float(self.of_draws(answers, references, np.ones((1, len(answers))))[0])


def mean_of(of_row: Callable[[str, Sequence[str]], float]) -> TextScore:
    """The score that is the mean of the rows' own scores, from 0 to 1."""

    def of_draws(answers: Sequence[str], references: Sequence[Sequence[str]], counts: np.ndarray) -> np.ndarray:
        rows = np.array([of_row(answer, own) for answer, own in zip(answers, references, strict=True)], np.float64)
        return np.asarray(counts @ rows / counts.sum(axis=1))

    return TextScore(of_draws, of_row)


def best(alike: Callable[[str, str], float]) -> TextScore:
    """The score that compares each answer with the reference that it is most like."""
    return mean_of(lambda answer, references: max(alike(answer, text) for text in references or NOTHING))


def written_texts(texts: Iterable[str]) -> str:
    """The references of a row, or its one answer, in the form that a file keeps: a JSON list of texts."""
    return json.dumps(list(texts), ensure_ascii=False)


def metric_of(score: TextScore) -> Metric:
    """A metric made from a score of texts. It needs only answers and truths as `written_texts` writes them.

    If an answer has several texts, the first counts; if it has none, nothing was written. So the truths themselves can
    be scored as answers.
    """

    def texts(answers: Sequence[str], truths: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        return [next(iter(json.loads(answer)), "") for answer in answers], [json.loads(truth) for truth in truths]

    def of_rows(answers: Sequence[str], truths: Sequence[str]) -> np.ndarray:
        assert score.of_rows
        return score.of_rows(*texts(answers, truths))

    return Metric(
        lambda answers, truths: math.nan,
        lambda answers, truths: score.of(*texts(answers, truths)),
        of_draws=lambda answers, truths, counts: score.of_draws(*texts(answers, truths), counts),
        written=True,
        of_rows=of_rows if score.of_rows else None,
    )
