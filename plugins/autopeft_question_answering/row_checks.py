"""What must hold of rows with answers: each answer stands in its context, where it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import DataError, quoted
from autopeft_question_answering.answer_cells import UNKNOWN

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 60
"""Characters of a text that a message repeats."""


def check_places(rows: pd.DataFrame, source: str) -> None:
    """Every answer stands in the context of its row, at the place that it gives.

    Raises:
        DataError: one does not.
    """
    for row, context, answers in zip(rows.index, rows["context"], rows["answers"], strict=True):
        for text, start in answers:
            if text in context if start == UNKNOWN else context.startswith(text, start):
                continue
            place = context.find(text)
            where = f"{source}, row {row}: the answer {quoted(text, SHOWN)} must stand in the context"
            if place < 0:
                raise DataError(f"{where}, but nowhere does; give the words that stand there, or remove the row.")
            there = context[start : start + len(text)]
            seen = f"{quoted(there, SHOWN)} stands there" if there else f"that ends after {len(context)} characters"
            raise DataError(
                f"{where} from character {start} on, counted from 0, but {seen}; it first stands at {place}: correct "
                "`answer_start`, or leave all of them out, and the first place is taken."
            )


def check_train(rows: pd.DataFrame, source: str) -> None:
    """Some row has an answer.

    Raises:
        DataError: none has.
    """
    if not rows["answers"].map(len).any():
        raise DataError(f"{source}: some training row must have an answer, but none of the {len(rows)} has one.")


def check_test(test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
    """Questions without an answer are in the training rows too, where they are here.

    Raises:
        DataError: they are not, so no winner would ever give none.
    """
    bare = test[~has_answer(test)]
    if len(bare) and has_answer(train).all():
        raise DataError(
            f"{source}, row {bare.index[0]}: every held-out question must have an answer as every training question "
            f"has one, but {len(bare)} have none; add training rows without an answer, or remove these."
        )


def has_answer(rows: pd.DataFrame) -> pd.Series:
    """Whether each row has an answer."""
    return rows["answers"].map(len) > 0


def notes_on(rows: pd.DataFrame) -> list[str]:
    """What was assumed of the training rows, a sentence each."""
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
            f"{len(guessed)} training rows do not say where their answer starts, so the first place where it stands, "
            f"as whole words if it does, is learnt; in {several} of them it stands in several."
        )
    return found
