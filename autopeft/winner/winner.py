"""Saves and loads a winner: its weights, its tokenizer and a card with what must be known about it."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autopeft.common.exceptions import (
    AutopeftError,
    MethodError,
    UserInputError,
    in_a_line,
)
from autopeft.common.files import draft_folder, put
from autopeft.common.truncation import Truncation
from autopeft.models.attach import merged
from autopeft.models.device import Device, named_device
from autopeft.models.quantization import NONE
from autopeft.models.readers import READERS
from autopeft.models.sampling import Sampling
from autopeft.models.weights_file import OWN_FILES, PEFT_FILES
from autopeft.study.card import CARD, CLASSIFIER, EVIDENCE, Card, Evidence
from autopeft.study.journal import writing
from autopeft.study.winner_of_task import of_task
from autopeft.tasks.writing import Writing
from autopeft.training.learner import evaluate
from autopeft.winner import hub, members, readme, shown
from autopeft.winner.answering import Answering
from autopeft.winner.method import method_of
from autopeft.winner.readme import README
from autopeft.winner.task import task_of
from autopeft.winner.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from torch import nn

    from autopeft.methods.contract import ModelSpec, PeftMethod
    from autopeft.models.reader import Reader
    from autopeft.tasks.column import Column


FILES = {CARD, EVIDENCE, README, CLASSIFIER, *OWN_FILES, *PEFT_FILES, *members.MEMBER_FILES}
"""Names of the files of any winner, besides its tokenizer's, which depend on the base model. They include the file of a
classifier."""


class Winner:
    """A trained model with its tokenizer and labels, in float32, ready to predict.

    Attributes:
        modules: the model, or those of several folds, whose answers are averaged.
        module: the first of them.
        reader: reads the rows, with the processor of the base model.
        card: what it is.
        spec: the base model's description for methods.
        truncated: what `card.max_length` did to all rows answered so far.
        evidence: how it was made; None where that was not saved with it.
        answering: what it does with rows before and after its model.
    """

    def __init__(
        self,
        module: nn.Module | Sequence[nn.Module],
        processor: Any,
        card: Card,
        spec: ModelSpec,
        evidence: Evidence | None = None,
        device: str = "cpu",
        base: nn.Module | None = None,
    ) -> None:
        self.modules = [one.to(device) for one in ([module] if isinstance(module, torch.nn.Module) else module)]
        self.module = self.modules[0]
        self.card = card
        self.spec = spec
        self.evidence = evidence
        self._task = task_of(card)
        self.reader = READERS[self._task.processor].of_winner(processor, self.module, card, "the winner's card")
        if isinstance(self._task, Writing):
            self._task.prepare(self.reader)
        self.answering = Answering(self._task, card, self.reader)
        self._device = Device(device, None)
        self.truncated = Truncation()
        self._base = base if self._task.writes else None  # it shares the module's tensors, except trained ones

    def __repr__(self) -> str:
        return shown.line(self.card, self.evidence)

    def _repr_html_(self) -> str:
        return shown.html(self.card, self.evidence)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the winner as its saved files, for joblib and multiprocessing; the base model stays where it is."""
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            paths = [path for path in Path(folder).rglob("*") if path.is_file()]
            files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return _of_files, (files, self._device.type)

    @property
    def processor(self) -> Any:
        """The base model's tokenizer or image processor."""
        return self.reader.processor

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the task, each with what it holds."""
        return self._task.columns

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that a row needs."""
        return self._task.inputs

    @property
    def input_names(self) -> dict[str, str]:
        """The names in the study's table of the columns that a row needs, by key."""
        return self.card.called(self.inputs)

    @property
    def writes(self) -> bool:
        """Whether it answers by writing texts."""
        return self._task.writes

    @property
    def texts(self) -> int:
        """How many texts of a row the tokenizer gets at once (`Task.texts`)."""
        return self._task.texts

    def arranged(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The processor's own output in the form that the model takes (`Task.arranged`)."""
        return self._task.arranged(inputs)

    def sample(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Two example rows (`Task.sample`)."""
        return self._task.sample(cells)

    def answers(self, rows: pd.DataFrame | Sequence[str], say: Callable[[str], None] | None = None) -> np.ndarray:
        """The task's answer to each row, float32 `[rows, …]`: probabilities of the labels, or numbers.

        For a task that writes, it is the probability of the texts that the rows teach.

        Args:
            rows: a frame with the input columns, named as in the study's table or by the task's keys; or, for a single
                input column, a list of texts or images.
            say: called with a sentence if rows are longer than `card.max_length` and so cut.

        Raises:
            DataError: it is not a table or a list of inputs, a column or a cell is missing, a cell is not a single
                value, or there are no rows.
        """
        return self._answers(self.answering.cells(rows, taught=self._task.writes), say)

    def _answers(self, cells: pd.DataFrame, say: Callable[[str], None] | None) -> np.ndarray:
        encoded = self.answering.encoded(cells)
        self.truncated += encoded.truncated
        if say:
            for told in self.reader.told(encoded.truncated):
                say(told)
        each = [evaluate(one, encoded, [encoded.everything], self._task, self._device)[0] for one in self.modules]
        return self.answering.together(each, cells)

    def predict_proba(self, rows: pd.DataFrame | Sequence[str], say: Callable[[str], None] | None = None) -> np.ndarray:
        """Class probabilities, float32 `[rows, classes]`, classes in the order of `card.labels`; see `answers`.

        Raises:
            UserInputError: the task has no classes.
        """
        if not self.card.labels:
            raise UserInputError(f"{self.card.task} has no classes and therefore no probabilities; call `predict`.")
        return self.answers(rows, say)

    def table(self, rows: pd.DataFrame | Sequence[str], say: Callable[[str], None] | None = None) -> pd.DataFrame:
        """The answers as a table: a row for each row, a column for each part of an answer; see `answers`."""
        return self._task.table(self._worded(rows, say), self.card.labels)

    def as_json(self, rows: pd.DataFrame | Sequence[str], say: Callable[[str], None] | None = None) -> list[Any]:
        """The answers for JSON, with all that is known about each; see `answers`."""
        return [self._task.as_json(answer, self.card.labels) for answer in self._worded(rows, say)]

    def _worded(self, rows: pd.DataFrame | Sequence[str], say: Callable[[str], None] | None) -> np.ndarray:
        return self.worded(self.answering.cells(rows), say)

    def worded(self, cells: pd.DataFrame, say: Callable[[str], None] | None = None) -> np.ndarray:
        """The answers to cells from `answering.cells`, `[rows, …]`, in the form that `Task.as_json` gets."""
        if isinstance(self._task, Writing):
            return self._task.write(self.module, cells, self.reader, say)
        return self._task.worded(self._answers(cells, say), cells)

    def predict(self, rows: pd.DataFrame | Sequence[str]) -> list[Any]:
        """The answer to each row: its most probable label, the list of its labels, a number, or a text."""
        return self._task.values(self._worded(rows, None), self.card.labels)

    @property
    def writer(self) -> Writer:
        """The writer of its texts.

        Raises:
            UserInputError: its kind of task does not write.
        """
        return Writer.of(self._task, self.reader, self.answering.cells, self.module, self._base)

    def write(
        self,
        rows: pd.DataFrame | Sequence[Any],
        say: Callable[[str], None] | None = None,
        *,
        max_new_tokens: int | None = None,
        base: bool = False,
        **sampling: Any,
    ) -> list[str]:
        """A text for each row, if the winner's task writes texts; `predict` writes them with default settings.

        Args:
            rows: as for `answers`; a conversation is a list of messages, in the form that a study reads.
            say: called with a sentence if rows are cut, or contain something that is not read as it looks.
            max_new_tokens: most tokens of a text. Default: as many as the training rows need.
            base: let the base model write, without the add-on.
            sampling: `temperature`, `top_p`, `top_k` and `seed` of `Sampling`. Default: the most probable token.

        Raises:
            UserInputError: it does not write, a number is out of its range, or an error of `answers`.
        """
        return self.writer.write(rows, say, max_new_tokens, Sampling(**sampling), base=base)

    def save(self, folder: str | Path) -> None:
        """Write the winner to `folder`, from which `load` reads it, with a README about it.

        The folder must be new, or empty, or hold a winner, which is replaced; other files beside it stay.

        Raises:
            UserInputError: the folder holds other files.
            StoreError: it could not be written.
            MethodError: the method's plugin is not installed.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / CARD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserInputError(
                f"a winner must go to a new or empty folder, or over another winner, but {folder} is none of these; "
                "give another folder."
            )
        method = method_of(self.card)
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with draft_folder(folder) as draft:
                models = self.modules if self.card.members else self.module
                save(models, method, self.reader, self.card, draft / "winner", self.evidence)
                put(draft / "winner", folder, FILES, last=CARD)

    def push_to_hub(self, repo: str, *, private: bool | None = None) -> str:
        """Save the winner in a repository on the Hugging Face hub, and return its address.

        Args:
            repo: such as ``me/tickets``; made if it does not exist.
            private: whether a new one is private; default: the account's setting.

        Raises:
            HubError: the hub cannot be reached, or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            return hub.push(Path(folder), repo, private=private)

    def merge(self) -> nn.Module:
        """The plain transformers model with the add-on merged in, which needs neither autopeft nor peft.

        A quantized base model's weights are expanded first (`dequantized`).

        Raises:
            MethodError: the method cannot be merged, its plugin is not installed, or the models of several folds
                answer together.
        """
        if self.card.members:
            raise MethodError(
                f"a winner can be merged only if it is one model, but here the models of {self.card.members} folds "
                'answer together; predict with the winner itself, or train it with `form = "average"` in [winner].'
            )
        if self.card.quantization != NONE:
            from autopeft.winner.dequantized import dequantized

            return dequantized(self).merge()
        plain = merged(self.module, method_of(self.card))
        if plain is None:
            raise MethodError(
                f'a winner can be merged only if its method can, but "{self.card.method}" cannot; predict with the '
                "winner itself."
            )
        self._task.restore(plain)
        return plain


def save(
    models: nn.Module | Iterable[nn.Module],
    method: PeftMethod,
    reader: Reader,
    card: Card,
    folder: Path,
    evidence: Evidence | None = None,
) -> None:
    """Write the add-on, the head, the processor and the card to `folder`; weights as safetensors.

    Several models, whose answers are averaged, are written to one folder each, as they come.

    Raises:
        StoreError: they could not be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    count, digests = members.write(models, method, folder)
    with writing(folder):
        reader.save(folder)
        card = replace(card, digests=digests, members=count)
        card.write(folder)
        describe(folder, card, evidence)


def describe(folder: Path, card: Card, evidence: Evidence | None) -> None:
    """Write what is known about a winner beside it, for programs and, as a README, for people."""
    if evidence:
        evidence.write(folder)
    readme.write(folder, card, evidence)


def load(
    folder: str | Path, device: str = "cpu", *, trust_remote_code: bool = False, task: str | None = None
) -> Winner:
    """Load a winner that a study saved.

    The content of the folder is not trusted: it may come from elsewhere, or be damaged.

    Args:
        folder: of the winner.
        device: where it will predict: "cpu", "cuda", or "cuda:1" for the second GPU.
        trust_remote_code: run code that its base model brings, if its study did; a winner from elsewhere may name any
            model.
        task: the name of one of several tasks, if the study learnt several on one base model.

    Raises:
        UserInputError: the folder is not a winner of the task or was changed, its base model or its method is not
            installed here, or it needs code that is not trusted; or there is no such device. It is a ModelError if the
            base model is not the one it was trained on.
    """
    folder, device = of_task(Path(folder), task), named_device(device)
    try:
        card, evidence = Card.read(folder), Evidence.read(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # warnings between libraries, which the user cannot act on
            base, models = members.read(folder, card, trust_remote_code=trust_remote_code)
    except (AutopeftError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the libraries may raise anything
        raise UserInputError(f"{folder} cannot be loaded as a winner: {in_a_line(error)}; restore it.") from error
    # A quantized base model is on the GPU if there is one, whatever device was asked for.
    at = device if card.quantization == NONE else next(base.module.parameters()).device.type
    return Winner(models, base.processor, card, base.spec, evidence, at, base.module)


def _of_files(files: Mapping[str, bytes], device: str) -> Winner:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return load(folder, device, trust_remote_code=True)  # unpickling runs code from the pickle anyway
