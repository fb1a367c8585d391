"""Answers to questions that stand in a text."""

from collections.abc import Iterable

from autopeft import Task, hookimpl
from autopeft_question_answering.task import QuestionAnswering


@hookimpl
def register_tasks() -> Iterable[Task]:
    """The one kind."""
    return [QuestionAnswering()]
