"""One label for a text, answered by a language model's own words, as a plugin."""

from collections.abc import Iterable

from autopeft import Task, hookimpl
from autopeft_prompts.task import PromptClassification


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The kind of task `prompt-classification`."""
    return [PromptClassification()]
