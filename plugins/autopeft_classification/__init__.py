"""One label for a text, or for two."""

from collections.abc import Iterable

from autopeft import Task, hookimpl
from autopeft_classification.task import TextClassification, TextPairClassification


@hookimpl
def register_tasks() -> Iterable[Task]:
    """Both kinds."""
    return [TextClassification(), TextPairClassification()]
