"""The winner of one task in the winner's folder of a study of several tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError, brief, nearest
from autopeft.study.card import CARD
from autopeft.study.folder import TASKS
from autopeft.study.setting_types import TASK_NAME

if TYPE_CHECKING:
    from pathlib import Path


def is_winner(folder: Path) -> bool:
    """Whether a folder holds a winner, or one for each of several tasks."""
    return (folder / CARD).is_file() or (folder / TASKS).is_file()


def of_task(folder: Path, task: str | None) -> Path:
    """The folder with the winner of that task; the folder itself if it holds a winner of one task.

    Raises:
        UserInputError: there are several and `task` is None, or there is none of that name.
    """
    if not (folder / TASKS).is_file():
        if task is None:
            return folder
        raise UserInputError(
            f'a task is named for a winner of several tasks, but {brief(folder)} is of one; leave out "{brief(task)}".'
        )
    names = tasks_in(folder)
    if task is None:
        raise UserInputError(
            f"{brief(folder)} holds a winner for each of several tasks ({', '.join(names)}), so one must be named: "
            "give `--task NAME`, in Python `task=`, or the folder of that name in it."
        )
    if task not in names:
        raise UserInputError(f'{brief(folder)} holds no winner of a task "{brief(task)}"; {nearest(task, names)}')
    return folder / task


def of_each_task(folder: Path) -> list[Path]:
    """The folders with the winners of all tasks; the folder itself if it holds a winner of one task."""
    return [folder / name for name in tasks_in(folder)] if (folder / TASKS).is_file() else [folder]


def is_task(folder: Path) -> bool:
    """Whether this is the folder of one of several tasks."""
    return (folder.absolute().parent / TASKS).is_file()


def tasks_in(folder: Path) -> list[str]:
    """The names of the tasks in the winner's folder of a study of several tasks.

    Raises:
        UserInputError: the file that names them was changed.
    """
    content = plain_file.read_json(folder / TASKS)
    names = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(
        isinstance(name, str) and re.fullmatch(TASK_NAME, name) for name in names
    ):
        raise UserInputError(f"{folder / TASKS} must name the tasks of a study, but does not; restore it.")
    return names
