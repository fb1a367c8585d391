"""Several tasks that are learnt together, as one task to the host: it maximises the mean of their gains."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import numpy as np

from autopeft.common.bounds import Bounds
from autopeft.common.exceptions import SpecError, UserInputError
from autopeft.data.rows_of_tasks import RowsOfTasks, task_of
from autopeft.methods.dimensions import Float
from autopeft.methods.search_space import SearchSpace
from autopeft.study.sections import SEVERAL_TASKS
from autopeft.study.several_tasks import GAIN
from autopeft.tasks.contract import CONTRACT, Baseline, Task
from autopeft.tasks.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd
    import torch

    from autopeft.common.params import Params, ParamValue
    from autopeft.methods.contract import ModelSpec

TEMPERATURE = "temperature"
"""The dimension of how often each task is drawn: a task with n rows with a probability proportional to
n^(1 / temperature). 1 draws all rows alike, and a high temperature all tasks alike (Raffel et al. 2020,
arXiv:1910.10683, section 3.5.2)."""

SPACE = SearchSpace({TEMPERATURE: Float(low=1.0, high=10.0, default=2.0, log=True, bounds=Bounds(least=1))})
"""The dimensions of a study of several tasks that do not depend on the method."""


class SeveralTasks(Task):
    """Several tasks on one base model. Its answers are an object for each row, since each task has its own kind.

    Args:
        tasks: by name.
        rows: the training rows.
        metrics: the metric of each task.
        specs: of the base model of each task, with its head.

    Attributes:
        tasks, specs: by name.
        temperature: at which tasks are drawn.
        references: by task, the mean score over the folds of its single-task default; filled before the search.
    """

    contract = CONTRACT
    kind = SEVERAL_TASKS
    auto_class = ""
    columns = ()
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType({})

    def __init__(
        self,
        tasks: Mapping[str, Task],
        rows: RowsOfTasks,
        metrics: Mapping[str, str],
        specs: Mapping[str, ModelSpec],
    ) -> None:
        self.tasks, self._rows, self._metrics, self.specs = dict(tasks), rows, dict(metrics), dict(specs)
        self.references: dict[str, float] = {}
        self.temperature = float(SPACE[TEMPERATURE].default)
        vars(self)["metrics"] = {GAIN: Metric(lambda answers, truths: self.score(GAIN, truths, answers), _no_texts)}

    @property
    def calibrates(self) -> bool:
        """Always: the scores of each task are kept (`after_folds`)."""
        return True

    def search_space(self) -> SearchSpace:
        """The temperature, which is always searched."""
        return SPACE

    def trying(self, params: Params) -> Self:
        """These tasks, drawn at a temperature."""
        task = copy.copy(self)
        task.temperature = float(params.get(TEMPERATURE, self.temperature))
        return task

    def run(self, model: Any, batch: Mapping[str, torch.Tensor]) -> Any:
        """The outputs of the model of the batch's task."""
        name, own = task_of(batch)
        return self.tasks[name].run(model.of(name), own)

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss of the batch's task."""
        name, own = task_of(batch)
        return self.tasks[name].loss(outputs, own)

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The answers of the batch's task."""
        name, own = task_of(batch)
        return self.tasks[name].answer(outputs, own)

    def score(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> float:
        """The gain over training rows.

        Args:
            metric: its name.
            truths: the numbers of the rows.
            answers: to each of them, in the form of its task.
        """
        found = self.scores(truths, answers)
        return float(np.mean([score - self.references[name] for name, score in found.items()]))

    def scores(self, rows: np.ndarray, answers: np.ndarray) -> dict[str, float]:
        """The score of each task by its own metric, over rows that a fold validates; arguments as of `score`."""
        return {
            name: self.tasks[name].score_of_fold(self._metrics[name], truths, own)
            for name, truths, own in self._by_task(rows, answers)
        }

    def one_answer(self, answers: np.ndarray, truths: np.ndarray) -> bool | None:
        """Whether every task that can tell got the same answer for nearly all rows; arguments as of `scores`."""
        signs = [self.tasks[name].one_answer(own, true) for name, true, own in self._by_task(truths, answers)]
        known = [sign for sign in signs if sign is not None]
        return all(known) if known else None

    def after_folds(self, folds: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> dict[str, ParamValue]:
        """Facts from the rows and answers of each fold: each task's scores, and what its own answers need.

        They are called `<task>/score/<fold>` and `<task>/fact/<name>`.
        """
        found: dict[str, ParamValue] = {}
        for fold, (rows, answers) in folds.items():
            found |= {f"{name}/score/{fold}": score for name, score in self.scores(rows, answers).items()}
        rows, answers = (np.concatenate([pair[part] for pair in folds.values()]) for part in (0, 1))
        for name, truths, own in self._by_task(rows, answers):
            if self.tasks[name].calibrates:
                told = self.tasks[name].calibrated(own, truths)
                found |= {f"{name}/fact/{key}": value for key, value in told.items()}
        return found

    def _by_task(self, rows: np.ndarray, answers: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for name, places, own in self._rows.split_rows(rows):
            yield name, self._rows.parts[name].truths[own], stacked(answers[places])

    def example(self) -> pd.DataFrame:
        """There is none: each task has its own."""
        _of_each()

    def encode(self, rows: pd.DataFrame, reader: Any, labels: Sequence[str]) -> RowsOfTasks:
        """Each task encodes its own rows."""
        _of_each()

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """Each task writes its own answers."""
        _of_each()

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """Each task writes its own truths."""
        _of_each()

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """Each task has its own table."""
        _of_each()

    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """Each task has its own form."""
        _of_each()

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """Each task has its own baseline."""
        _of_each()


@contextmanager
def naming(task: str) -> Iterator[None]:
    """Name the task in messages about its settings, rows and model."""
    try:
        yield
    except UserInputError as error:
        raise type(error)(f'the task "{task}": {error}') from error.__cause__


def require(task: Task) -> None:
    """Check that a task can be learnt beside others.

    Raises:
        SpecError: it writes texts, compares the rows of a batch, keeps a pretrained head, or has settings that are
            searched.
    """
    reasons = {
        "writes texts": task.writes,
        "compares the rows of a batch": task.contrasts,
        "keeps the head of a pretrained model": not task.new_head,
        "has settings that are searched": bool(task.searched),
    }
    for reason, there in reasons.items():
        if there:
            raise SpecError(
                f"`[[tasks]]` are learnt together, each with a new head on one base model, but {task.kind} {reason}; "
                "give it a study of its own."
            )


def as_objects(answers: np.ndarray) -> np.ndarray:
    """Answers `[rows, …]` as an array of objects `[rows]`."""
    found = np.empty(len(answers), object)
    for place, answer in enumerate(answers):
        found[place] = answer
    return found


def stacked(answers: np.ndarray) -> np.ndarray:
    """The answers of one task that `as_objects` took apart; where folds differ in width, padded with -1."""
    parts = [np.asarray(answer) for answer in answers]
    if parts[0].ndim:
        widest = max(len(part) for part in parts)
        parts = [
            np.pad(part, [(0, widest - len(part)), *[(0, 0)] * (part.ndim - 1)], constant_values=-1.0) for part in parts
        ]
    return np.stack(parts)


def _no_texts(answers: Sequence[str], truths: Sequence[str]) -> float:
    _of_each()


def _of_each() -> NoReturn:
    raise NotImplementedError("several tasks have no common form of this; ask each of them.")
