"""Plugin: labels for the words of a text, such as names, slots and parts of speech."""

from collections.abc import Iterable

from autopeft import Task, hookimpl


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The kind of task `token-classification`."""
    from autopeft_tokens.task import TokenClassification

    return [TokenClassification()]
