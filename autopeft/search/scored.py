"""A model's answers to the held-out rows, and their score."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from autopeft.search.layer_drop import LayerDrop
from autopeft.search.served import REFIT
from autopeft.tasks.writing import Writing
from autopeft.training.learner import evaluate

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.tasks.contract import Task


class Scored(NamedTuple):
    """Answers to the test rows and their score.

    `task` knows the facts that the folds gave it. `texts` are what a task that writes wrote for the first rows. `told`
    is a note on the training. `drop` says which layers lost their add-ons.
    """

    score: float
    answers: np.ndarray
    task: Task
    written: list[str]
    texts: np.ndarray | None = None
    told: str = ""
    form: str = REFIT
    drop: LayerDrop = LayerDrop()

    def note(self, name: str) -> dict[str, str]:
        """The note on its training, under that name; empty where there is none."""
        return {name: self.told} if self.told else {}


def scored(problem: Problem, task: Task, answers: np.ndarray, texts: np.ndarray | None = None) -> Scored:
    """Those answers with their score."""
    score = task.score(problem.metric, problem.test.truths, answers)
    told = task.written(task.worded(answers, problem.rows.test), problem.rows.labels)
    return Scored(score, answers, task, told, texts)


def scored_here(problem: Problem, model: nn.Module) -> Scored:
    """The answers, scored, of a model on the study's device, in the study's precision."""
    (answers,) = evaluate(model, problem.test, [problem.test.everything], problem.task, problem.device)
    with problem.device.kernels(), problem.device.precision():
        return scored(problem, problem.task, answers, texts_of(problem, model))


def texts_of(problem: Problem, model: nn.Module) -> np.ndarray | None:
    """What a model writes for the first held-out rows; None where the task does not write."""
    task = problem.task
    if not isinstance(task, Writing) or not task.options.written_rows:
        return None
    return task.write(model, problem.rows.test[: task.options.written_rows], problem.reader)
