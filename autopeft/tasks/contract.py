"""The contract between the host and a kind of task: rows become tensors, tensors a loss, and outputs answers."""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from autopeft.common.exceptions import SpecError, brief, nearest
from autopeft.methods.search_space import SearchSpace
from autopeft.study.file import read_section
from autopeft.study.sections import Section
from autopeft.tasks.base_model_part import BaseModelPart
from autopeft.tasks.collapse_signs import CollapseSigns
from autopeft.tasks.fit import TableFit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft.common.params import Params, ParamValue
    from autopeft.data.encoded import Encoded
    from autopeft.study.report_section import ReportSection
    from autopeft.tasks.column import Column
    from autopeft.tasks.metric import Metric

CONTRACT = 1
"""The version of this contract. It rises when kinds of task written for the old one no longer work."""


class Baseline(NamedTuple):
    """A baseline that ignores the inputs: its name, and its answers `[rows, …]`."""

    name: str
    answers: np.ndarray


class Task(BaseModelPart, CollapseSigns, TableFit, ABC):
    """A kind of task, such as giving a text one of several labels.

    The host reads the rows, splits and packs them, trains, and chooses; a task says what the rows are, and computes the
    loss and the answers.

    Class attributes:
        contract: the version of this contract that the task was written for, as a number.
        kind: its name in study files, such as "text-classification".
        auto_class: the transformers class that puts the head on; settings or the base model may change it
            (`configured`, `facts_of_config`).
        new_head: whether that class puts on a new head, to be trained; that of a language model stays as it is.
        writes: whether it answers with texts; see `autopeft.tasks.writing`.
        processor: the transformers class that reads the rows: "AutoTokenizer" for texts.
        columns: what a row needs; the settings may change it (`configured`, `taking`).
        metrics: what can be maximised, by name; the first is the default.
        peft_task_type: peft's name for it (`peft.TaskType`); None where peft has none, as for images.
        taught: tensors of a batch that the model does not get.
        pipeline_tag: the Hugging Face hub's name for it.
        group: key of a column; rows with equal cells stay on one side of every split if [data] names no `group`.
            Empty: rows are split one by one.
        arranging: Python code that does the same as `arranged` to the processor's `inputs`; for READMEs.
        outputs: names of the model's outputs that answers are made of.
        contrasts: whether the loss compares the rows of a batch, and an answer is scored against those to other rows:
            then a batch goes through the model whole.
        averages: whether the mean of several models' answers to a row is an answer to it.
        Options: its own settings under [task], checked as the study file is.

    Attributes:
        options: the settings, of the class `Options`.
        taken: keys of the optional columns that are read.
        names: the names among which an answer chooses (`labels`), once the rows are read.
        searched: names of its dimensions that are searched.
        facts: what answers need from the training rows (`facts_of`) and from the folds (`calibrated`), by name.
        maximised: name of the metric that a study chooses by; empty outside of a study.

    A kind with labels takes a few lines, as `Classification` brings the loss and the answers:

    >>> import pandas as pd
    >>> from autopeft import Classification, Column, Encoded, Field, token_fields
    >>> from autopeft.testing.task_case import TaskCase
    >>> class Tone(Classification):
    ...     contract, kind, auto_class = 1, "tone", "AutoModelForSequenceClassification"
    ...     columns = (Column("text"), Column("label", "label", given=False))
    ...
    ...     def example(self):
    ...         return pd.DataFrame({"text": ["so good", "so very bad"] * 4, "label": ["+", "-"] * 4})
    ...
    ...     def encode(self, rows, processor, labels):
    ...         tokens, truths = processor(rows["text"].tolist()), self.truths(rows, labels)
    ...         fields = token_fields(tokens.columns, tokens.offsets, pad_token_id=0)
    ...         return Encoded({**fields, "labels": Field(truths)}, truths, axis="input_ids")
    >>> case = TaskCase(Tone())  # its example rows, and a tiny model
    >>> case.task.answer(*case.outputs([0, 1])).shape  # a probability for each label
    torch.Size([2, 2])
    """

    contract: ClassVar[int]
    kind: ClassVar[str]
    processor: ClassVar[str] = "AutoTokenizer"
    columns: tuple[Column, ...]
    metrics: ClassVar[Mapping[str, Metric]]
    peft_task_type: str | None = None
    taught: ClassVar[tuple[str, ...]] = ("labels",)
    pipeline_tag: ClassVar[str] = "text-classification"
    group: ClassVar[str] = ""
    arranging: ClassVar[str] = ""
    outputs: ClassVar[tuple[str, ...]] = ("logits",)
    contrasts: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    Options: ClassVar[type[Section]] = Section
    options: Any = None
    taken: tuple[str, ...] = ()
    facts: Mapping[str, ParamValue] = MappingProxyType({})
    searched: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    maximised: str = ""

    def configured(self, options: Mapping[str, Any]) -> Self:
        """This task with its settings.

        Raises:
            SpecError: a setting is unknown or wrong.
        """
        task = copy.copy(self)
        task.options = read_section(self.Options, options, "task", ("kind",))
        return task

    def taking(self, named: Collection[str]) -> Self:
        """This task with those optional columns that are named."""
        task = copy.copy(self)
        task.taken = tuple(column.key for column in self.columns if column.optional and column.key in named)
        return task

    def knowing(self, facts: Mapping[str, ParamValue], names: Sequence[str] = ()) -> Self:
        """This task with facts from the training rows, and the names among which an answer chooses."""
        task = copy.copy(self)
        task.facts, task.names = dict(facts), tuple(names)
        return task

    def measuring(self, name: str, metric: Metric) -> Self:
        """This task with one more metric."""
        task = copy.copy(self)
        vars(task)["metrics"] = {**self.metrics, name: metric}
        return task

    def maximising(self, metric: str) -> Self:
        """This task in a study that chooses by that metric."""
        task = copy.copy(self)
        task.maximised = metric
        return task

    @property
    def inputs(self) -> tuple[str, ...]:
        """Keys of the columns that prediction asks for."""
        return tuple(c.key for c in self.columns if c.given and (not c.optional or c.key in self.taken))

    @property
    def texts(self) -> int:
        """How many texts of a row the tokenizer gets at once, one or two. Default: each input is one."""
        return len(self.inputs)

    @property
    def taught_columns(self) -> tuple[str, ...]:
        """Keys of the columns that the rows teach, including the optional ones that are read."""
        return tuple(c.key for c in self.columns if not c.given and (not c.optional or c.key in self.taken))

    def metric(self, name: str | None) -> str:
        """The name of a metric of this task; its default if `name` is None.

        Raises:
            SpecError: it has no such metric.
        """
        if name is None:
            return next(iter(self.metrics))
        if name not in self.metrics:
            known = nearest(name, self.metrics)
            raise SpecError(f'`metric` in [validation] is "{brief(name)}", which {self.kind} does not know; {known}')
        return name

    def score(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> float:
        """The metric over rows, from their truths `[rows]` and the answers `[rows, …]`."""
        found = self.metrics[metric]
        if found.written:
            return found.of_written(self.written(answers, self.names), self.written_truths(truths, self.names))
        return found.score(answers, truths)

    def score_of_fold(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> float:
        """The metric over the rows that a fold validates, which compares candidates. Default: `score`.

        `calibrated` is called later: this method must choose what answers need of it, or do without.
        """
        return self.score(metric, truths, answers)

    # Rows. `source` is what errors call the table.

    def gathered(self, rows: pd.DataFrame, source: str) -> pd.DataFrame:
        """The rows with one column for what they teach, where it was read from several columns.

        Default: the columns as they are.

        Raises:
            DataError: the columns do not fit together; in one sentence, with the row and what to do.
        """
        return rows

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Refuse training rows, as they were read, that a study cannot use.

        Raises:
            DataError: in one sentence, with the row and what to do.
        """

    def check_test(self, test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
        """Refuse held-out rows, from a file of their own, that ask for what the training rows do not teach.

        Raises:
            DataError: in one sentence, with the row and what to do.
        """

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Refuse training rows that are too few for the folds; return what a user should know, a sentence each.

        Raises:
            DataError: in one sentence, with what to do.
        """
        return []

    def strata(self, rows: pd.DataFrame) -> pd.Series | None:
        """A value for each row; the rows with each value keep their share in every part. Default: None, any split."""
        return None

    def labels(self, train: pd.DataFrame, test: pd.DataFrame) -> tuple[str, ...]:
        """The names among which an answer chooses, in the order of the model's outputs. Default: none."""
        return ()

    def facts_of(self, train: pd.DataFrame) -> dict[str, ParamValue]:
        """Facts from the training rows that answers need, such as the mean of the numbers to predict. Default: none.

        They are kept with a winner, and are in `self.facts` from then on.
        """
        return {}

    @abstractmethod
    def example(self) -> pd.DataFrame:
        """A dozen rows of different lengths, with what they teach: `autopeft check` tests the task on them."""

    def sample(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Two rows for an example in a README, a list of cells for each input. Default: the same in every column.

        Args:
            cells: two inputs of the processor.
        """
        return {key: [*cells] for key in self.inputs}

    # Tensors.

    @abstractmethod
    def encode(self, rows: pd.DataFrame, reader: Any, labels: Sequence[str]) -> Encoded:
        """Rows as arrays. If the columns that teach are missing, `truths` and the `taught` tensors are zeros.

        Args:
            rows: the task's columns by their keys.
            reader: the one that goes with `processor`: a `RowTokenizer` for texts.
            labels: the names among which an answer chooses.
        """

    def arranged(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The processor's own output in the form that the model takes; for exports. Default: the same."""
        return dict(inputs)

    # Learning.

    def search_space(self) -> SearchSpace:
        """Settings that [search] may name to have them searched, such as those of the loss. Default: none.

        The default of each dimension is the value that is set.
        """
        return SearchSpace({})

    def searching(self, named: Collection[str]) -> Self:
        """This task with the names of its dimensions that are searched."""
        task = copy.copy(self)
        task.searched = frozenset(self.search_space()) & frozenset(named)
        return task

    def trying(self, params: Params) -> Self:
        """This task at a point of the dimensions that are searched."""
        if not params:
            return self
        task = copy.copy(self)
        task.options = self.options.model_copy(update=dict(params))
        return task

    @abstractmethod
    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean loss over what the batch's rows teach (`Encoded.units`), a scalar in float32.

        Padding must not change it, nor may a row change the loss of another: folds are trained side by side in one
        pass, and large batches in several. With `contrasts` rows may change each other's loss, but the host still asks
        for the loss of each fold's rows alone.
        """

    # Answers.

    @abstractmethod
    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The answer to each row: a float32 tensor `[rows, …]`, left on the device.

        If the second dimension differs from batch to batch, as the number of words does, the host pads it with -1.
        """

    def calibrated(self, answers: np.ndarray, truths: np.ndarray) -> dict[str, ParamValue]:
        """Facts that are chosen on rows the model was not trained on, such as a threshold. Default: none.

        It is called once for each trial that completes. What it returns goes into `self.facts` of the model that is
        then trained on all training rows, and is kept with a winner. Held-out rows have no part in it.

        Args:
            answers: to every training row, from the fold that validates it, `[rows, …]`.
            truths: what is true of these rows.
        """
        return {}

    @property
    def calibrates(self) -> bool:
        """Whether `calibrated` has something to choose."""
        return type(self).calibrated is not Task.calibrated

    def combine(self, answers: np.ndarray, row_of: np.ndarray) -> np.ndarray:
        """The answers to rows `[rows, …]` from the answers to their samples, if rows have several (`Encoded.row_of`).

        Args:
            answers: to samples, `[samples, …]`.
            row_of: the row of each sample, int64 `[samples]`; return the answers in the order of each row's first
                sample.
        """
        raise NotImplementedError(f"{self.kind} makes several samples of a row, and must combine their answers.")

    def worded(self, answers: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
        """The answers `[rows, …]` in the form that `written`, `table` and `as_json` get.

        Those three do not see the rows. So if answers are places in a row, such as where a text begins and ends, put
        in what stands there. Default: as they are.

        Args:
            answers: from `answer` or `combine`, or a baseline's.
            rows: the rows that they answer, the task's inputs by their keys.
        """
        return answers

    @abstractmethod
    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """The answer to each row as a file keeps it; the metric (`maximised`) can be computed from that again."""

    @abstractmethod
    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """What is true of each row, in the same form."""

    @abstractmethod
    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """The answers for people and MLflow: a row for each, a column for each thing that is answered."""

    def as_value(self, written: str) -> Any:
        """A written answer in the form that the user's own metric gets. Default: the text."""
        return written

    def values(self, answers: np.ndarray, labels: Sequence[str]) -> list[Any]:
        """The answer to each row as `Winner.predict` returns it. Default: the first column of `table`."""
        return self.table(answers, labels).iloc[:, 0].tolist()

    @abstractmethod
    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """One answer with all that is known of it, for `autopeft predict --json`."""

    def reading(self, labels: Sequence[str]) -> str:
        """How to read the model's logits, as a comment behind Python code that computes them. Default: nothing."""
        return f"columns: {json.dumps(list(labels), ensure_ascii=False)}" if labels else ""

    def sections(
        self, rows: pd.DataFrame, truths: np.ndarray, answers: np.ndarray, labels: Sequence[str]
    ) -> list[ReportSection]:
        """What the report shows about the held-out rows, beside the scores. Default: nothing.

        Args:
            rows: the task's columns by their keys.
            truths: what is true of the rows.
            answers: the winner's.
            labels: the names among which an answer chooses.
        """
        return []

    @abstractmethod
    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """The best answers to the held-out rows that ignore the inputs, given the truths of the training rows."""
