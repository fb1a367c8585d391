"""The kind of task that a winner was trained for, from its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError, nearest
from autopeft.study.card import CARD, Card
from autopeft.tasks.registry import find_task, task_kinds

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.tasks.contract import Task


def task_of(card: Card, folder: Path | None = None) -> Task:
    """The task that a winner was trained for, with its settings.

    Raises:
        UserInputError: no plugin brings it, or its settings are wrong.
    """
    if card.task not in task_kinds():
        where = f"{folder / CARD}" if folder else "the winner"
        raise UserInputError(
            f'`task` in {where} is "{card.task}", which no plugin brings; {nearest(card.task, task_kinds())} Install '
            "the plugin."
        )
    task = find_task(card.task).configured(card.task_options)
    return task.taking(card.inputs).knowing(card.task_facts, card.labels)
