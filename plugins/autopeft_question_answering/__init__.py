"""Answers to questions, found in a text."""

from collections.abc import Iterable

from autopeft import Task, hookimpl
from autopeft_question_answering.task import QuestionAnswering


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The kind of task `question-answering`."""
    return [QuestionAnswering()]
