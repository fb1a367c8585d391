"""Labels for a text, or for two: one of several, or any number of them."""

from collections.abc import Iterable

from autopeft import Task, hookimpl
from autopeft_classification.multi_label import TextMultiLabel
from autopeft_classification.task import TextClassification, TextPairClassification


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The kinds of task for one label, for one label of a pair of texts, and for any number of labels."""
    return [TextClassification(), TextPairClassification(), TextMultiLabel()]
