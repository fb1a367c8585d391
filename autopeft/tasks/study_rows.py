"""The rows of a study in the form that its kind of task takes; nothing here needs the base model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from autopeft.common.locate import locate
from autopeft.data.load import load_rows
from autopeft.data.table import open_table
from autopeft.tasks.contract import Task

if TYPE_CHECKING:
    from autopeft.data.load import StudyData
    from autopeft.study.file import StudySpec


def recognised(spec: StudySpec, task: Task) -> tuple[StudySpec, Task, str]:
    """The study and its task with the columns to read, and a sentence if these were found in the table.

    A task may find them in the training table if [data] names none.

    Args:
        spec: the study file.
        task: of its kind, with its settings.
    """
    told = ""
    if type(task).recognised is not Task.recognised and not spec.data.names_columns:
        table = open_table(locate(spec.data.train, spec.folder), encoding=spec.data.encoding, config=spec.data.config,
                           split=spec.data.train_split, sheet=spec.data.sheet)  # fmt: skip
        columns, told = task.recognised(table.names)
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"columns": columns})})
    return spec, task.taking(spec.data.named), told


def read_rows(spec: StudySpec, task: Task, told: str) -> StudyData:
    """The rows of a study, read and split, with the sentence `told` among the notes.

    Raises:
        DataError: as `load_rows`.
    """
    rows = load_rows(spec, task)
    return replace(rows, notes=(told, *rows.notes)) if told else rows


def rows_that_count(spec: StudySpec, task: Task, rows: int) -> int | None:
    """The rows of a fold that the length of training depends on; None if it does not depend on rows.

    Where texts are written, a row teaches as much as it has tokens, so the declared length holds for any number.

    Args:
        spec: the study file.
        task: of its kind.
        rows: to train on, in all.
    """
    return None if task.writes else spec.validation.rows_of_fold(rows)
