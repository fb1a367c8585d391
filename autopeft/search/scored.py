"""What a model answered to the held-out rows, and the score of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from autopeft.search.served import REFIT
from autopeft.tasks.writing import Writing
from autopeft.training.learner import evaluate

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.tasks.contract import Task


class Scored(NamedTuple):
    """Answers to the test rows, by a task that knows what its folds told, and the score of that.

    Of a task that writes also what was written for the first of them. What there is to tell of its training is told.
    """

    score: float
    answers: np.ndarray
    task: Task
    written: list[str]
    texts: np.ndarray | None = None
    told: str = ""
    form: str = REFIT

    def note(self, name: str) -> dict[str, str]:
        """What is told of its training, by that name."""
        return {name: self.told} if self.told else {}


def scored(problem: Problem, task: Task, answers: np.ndarray, texts: np.ndarray | None = None) -> Scored:
    """Those answers with their score."""
    score = task.score(problem.metric, problem.test.truths, answers)
    told = task.written(task.worded(answers, problem.rows.test), problem.rows.labels)
    return Scored(score, answers, task, told, texts)


def scored_here(problem: Problem, model: nn.Module) -> Scored:
    """What a model that is on the study's device answers there, in the study's precision."""
    (answers,) = evaluate(model, problem.test, [problem.test.everything], problem.task, problem.device)
    with problem.device.kernels(), problem.device.precision():
        return scored(problem, problem.task, answers, texts_of(problem, model))


def texts_of(problem: Problem, model: nn.Module) -> np.ndarray | None:
    """What a model writes for the first held-out rows; None where the task does not write."""
    task = problem.task
    if not isinstance(task, Writing) or not task.options.written_rows:
        return None
    return task.write(model, problem.rows.test[: task.options.written_rows], problem.reader)
