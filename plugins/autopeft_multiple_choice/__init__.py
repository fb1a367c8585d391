"""The right one of several choices, as a plugin."""

from collections.abc import Iterable

from autopeft import Task, hookimpl
from autopeft_multiple_choice.task import MultipleChoice


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The kind of task `multiple-choice`."""
    return [MultipleChoice()]
