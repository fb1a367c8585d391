"""Checks rows with answers: each answer must be in its context, where it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import DataError, quoted
from autopeft_question_answering.answer_cells import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 60
"""Most characters of a text that a message repeats."""


def check_places(rows: pd.DataFrame, source: str) -> None:
    """Make sure that every answer is in the context of its row, at the place that it gives.

    Raises:
        DataError: one is not.
    """
    for row, context, answers in zip(rows.index, rows["context"], rows["answers"], strict=True):
        for text, start in answers:
            if text in context if start == UNKNOWN else context.startswith(text, start):
                continue
            place = context.find(text)
            where = f"{source}, row {row}: the answer {quoted(text, SHOWN)} must be in the context"
            if place < 0:
                raise DataError(f"{where}, but is not; give words from the context, or remove the row.")
            there = context[start : start + len(text)]
            seen = f"{quoted(there, SHOWN)} is there" if there else f"that ends after {len(context)} characters"
            raise DataError(
                f"{where} from character {start} on, counted from 0, but {seen}; it first occurs at {place}. Correct "
                "`answer_start`, or leave all of them out to use the first places."
            )


def check_train(rows: pd.DataFrame, source: str) -> None:
    """Make sure that at least one row has an answer.

    Raises:
        DataError: none has.
    """
    if not rows["answers"].map(len).any():
        raise DataError(
            f"{source}: at least one training row must have an answer, but none of the {len(rows)} has one."
        )


def check_test(test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
    """If held-out questions have no answer, make sure that some training questions have none either.

    Raises:
        DataError: all have one, so no winner would ever answer with none.
    """
    bare = test[~has_answer(test)]
    if len(bare) and has_answer(train).all():
        raise DataError(
            f"{source}, row {bare.index[0]}: every held-out question must have an answer, because every training "
            f"question has one, but {len(bare)} have none; add training rows without an answer, or remove these."
        )


def has_answer(rows: pd.DataFrame) -> pd.Series:
    """Whether each row has an answer."""
    return rows["answers"].map(len) > 0


def notes_on(rows: pd.DataFrame) -> list[str]:
    """What was assumed about the training rows, a sentence each."""
    found = []
    bare = int((~has_answer(rows)).sum())
    if bare:
        found.append(f"{bare} of {len(rows)} training rows have no answer, so the winner may answer with none.")
    guessed = [
        context.count(answers[0][0])
        for context, answers in zip(rows["context"], rows["answers"], strict=True)
        if answers and answers[0][1] == UNKNOWN
    ]
    if guessed:
        several = sum(count > 1 for count in guessed)
        found.append(
            f"{len(guessed)} training rows do not say where their answer starts, so its first place in the context is "
            f"learnt, as whole words if possible; in {several} of them it occurs in several places."
        )
    return found
