"""Winners of several kinds on one tiny encoder, whose weights are drawn and not trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from autopeft.models import digest
from autopeft.study.card import Card
from tests.conftest import DTYPE, tiny_rows, trained_winner
from tests.tasks.test_multiple_choice import questions
from tests.tasks.test_question_answering import questions as asked
from tests.tasks.test_regression import numbers
from tests.tasks.test_token_classification import tagged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS: dict[str, Callable[[], pd.DataFrame]] = {
    "text-classification": tiny_rows,
    "regression": numbers,
    "token-classification": tagged,
    "multiple-choice": questions,
    "question-answering": lambda: pd.DataFrame(asked()),
}
"""Kinds of task, with rows of each."""

STUDY = """
name = "{name}"
[model]
name_or_path = "{model}"
dtype = "{dtype}"
[task]
kind = "{kind}"
[data]
train = "{name}.jsonl"
[validation]
folds = 2
"""


def winner_of(folder: Path, model: Path, kind: str, method: str, name: str, **params: Any) -> Path:
    """The folder of a winner of that name."""
    KINDS[kind]().to_json(folder / f"{name}.jsonl", orient="records", lines=True)
    study = folder / f"{name}.toml"
    study.write_text(STUDY.format(name=name, model=model, dtype=DTYPE, kind=kind))
    trained_winner(study, method, **params)
    found = (folder / method).rename(folder / name)
    replace(Card.read(found), base_digest=digest.of(model)).write(found)
    return found


def rows_of(kind: str, count: int, skip: int = 0) -> pd.DataFrame:
    """Rows to answer."""
    return KINDS[kind]().iloc[skip : skip + count].reset_index(drop=True)
