"""Tasks on images, as a plugin: one label for each, or a text that goes with it."""

from collections.abc import Iterator

from autopeft import Task, hookimpl


@hookimpl
def register_tasks() -> Iterator[Task]:
    """Yield the tasks of this plugin."""
    from autopeft_vision.matching import ImageTextMatching
    from autopeft_vision.task import ImageClassification

    yield ImageClassification()
    yield ImageTextMatching()
