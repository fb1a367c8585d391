"""Labels for the words of a text, as a plugin: names, slots, parts of speech."""

from collections.abc import Iterable

from autopeft import Task, hookimpl


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The one kind."""
    from autopeft_tokens.task import TokenClassification

    return [TokenClassification()]
