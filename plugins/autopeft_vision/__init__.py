"""Tasks on images, as a plugin: one label for each."""

from collections.abc import Iterator

from autopeft import Task, hookimpl


@hookimpl
def register_tasks() -> Iterator[Task]:
    """Yield the tasks of this plugin."""
    from autopeft_vision.task import ImageClassification

    yield ImageClassification()
