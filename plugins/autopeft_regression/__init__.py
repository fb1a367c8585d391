"""A number for a text, or for two."""

from collections.abc import Iterable

from autopeft import Task, hookimpl
from autopeft_regression.task import TextRegression


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The kind of task `regression`."""
    return [TextRegression()]
