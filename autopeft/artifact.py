"""Save a winner, and load it: its weights, its tokenizer and a card with all that must be known of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft import hub, readme, registry, tasks
from autopeft import model as models
from autopeft.card import CARD, EVIDENCE, Card, Evidence
from autopeft.data import as_text
from autopeft.exceptions import DataError, MethodError, UserInputError
from autopeft.files import draft_folder, put
from autopeft.locate import locate
from autopeft.quantization import NONE
from autopeft.readme import README
from autopeft.storage import writing
from autopeft.training import Device, evaluate
from autopeft.weights_file import PEFT_CONFIG, PEFT_WEIGHTS, WEIGHTS, read_weights, write_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from torch import nn

    from autopeft.method import ModelSpec, PeftMethod


FILES = {CARD, EVIDENCE, README, WEIGHTS, PEFT_CONFIG, PEFT_WEIGHTS}
"""Names of the files of any winner, besides its tokenizer's, which are those of its base model."""


class Winner:
    """A trained model with its tokenizer and labels, in float32, ready to predict.

    Attributes:
        module: the model.
        tokenizer: the base model's.
        card: what it is.
        spec: the base model, as methods see it.
        evidence: how it came about; None where that was not saved beside it.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        card: Card,
        spec: ModelSpec,
        evidence: Evidence | None = None,
        device: str = "cpu",
    ) -> None:
        self.module = module.to(device)
        self.tokenizer = tokenizer
        self.card = card
        self.spec = spec
        self.evidence = evidence
        self._task = tasks.get(card.task)
        self._device = Device(device, None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the files it is saved as, for joblib and multiprocessing; the base model stays where it is."""
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return _of_files, (files, self._device.type)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns a row needs."""
        return self._task.inputs

    def predict_proba(self, rows: pd.DataFrame | Sequence[str]) -> np.ndarray:
        """Class probabilities, float32 `[rows, classes]`, classes in the order of `card.labels`.

        Args:
            rows: a frame with the task's input columns, or texts where it takes one.

        Raises:
            DataError: no table and no list of texts, a column or a cell is missing, or there are no rows.
        """
        import pandas as pd

        if isinstance(rows, str | Mapping):
            raise DataError("prediction needs rows: a frame, or a list of texts; put a single one into a list.")
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame({self.inputs[0]: list(rows)})
        missing = [name for name in self.inputs if name not in frame]
        if missing or frame.empty:
            lack = f"no column {missing[0]!r}" if missing else "no row"
            raise DataError(f"prediction needs rows with the columns {', '.join(self.inputs)}, but got {lack}.")
        cells = frame[list(self.inputs)].astype(object)
        for name, empty in cells.isna().items():
            if empty.any():
                raise DataError(f'prediction needs every text, but row {cells.index[empty][0]} has none in "{name}".')
        texts = cells.map(as_text)
        encoded = self._task.encode(texts, self.tokenizer, self.card.labels, self.card.max_length)
        if not encoded.lengths.all():
            row = texts.index[int(encoded.lengths.argmin())]
            raise DataError(f"prediction needs a word in every row, but the tokenizer makes nothing of row {row}.")
        return evaluate(self.module, encoded, [np.arange(len(frame))], self._task, self._device)[0]

    def predict(self, rows: pd.DataFrame | Sequence[str]) -> list[str]:
        """The most probable label of each row."""
        return [self.card.labels[index] for index in self.predict_proba(rows).argmax(axis=-1)]

    def save(self, folder: str | Path) -> None:
        """Write the winner to `folder`, which `load` reads, with a README made of what is known of it.

        The folder must be new, or empty, or hold a winner, which is replaced; other files beside that one stay.

        Raises:
            UserInputError: the folder holds something else.
            MethodError: the method's plugin is not installed.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / CARD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserInputError(
                f"a winner goes to a folder that is new, empty or a winner's, but {folder} is none of these; "
                "give another one."
            )
        method = registry.discover()[self.card.method]
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
        with draft_folder(folder) as draft:
            save(self.module, method, self.tokenizer, self.card, draft / "winner", self.evidence)
            with writing(folder):
                put(draft / "winner", folder, FILES, last=CARD)

    def push_to_hub(self, repo: str, *, private: bool | None = None) -> str:
        """Save the winner in a repository on the Hugging Face hub, and return its address.

        Args:
            repo: such as ``me/tickets``; made if it is not there.
            private: whether a new one is; default: as the account has it.

        Raises:
            HubError: the hub cannot be reached, or refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            return hub.push(Path(folder), repo, private=private)

    def merge(self) -> nn.Module:
        """The plain transformers model with the add-on folded in, which needs neither autopeft nor peft any more.

        Raises:
            MethodError: the method cannot be merged, or its plugin is not installed, or the base model is quantized.
        """
        if self.card.quantization != NONE:
            raise MethodError(
                f"a winner can be merged where its base model is whole, but this one's is in {self.card.quantization}; "
                'train it with `quantization = "none"`.'
            )
        plain = models.merged(self.module, registry.discover()[self.card.method])
        if plain is None:
            raise MethodError(
                f'a winner can be merged where its method can, but "{self.card.method}" cannot; '
                "predict with the winner itself."
            )
        return plain


def save(
    module: nn.Module, method: PeftMethod, tokenizer: Any, card: Card, folder: Path, evidence: Evidence | None = None
) -> None:
    """Write the add-on, the head, the tokenizer and the card to `folder`; weights as safetensors.

    Raises:
        StoreError: they could not be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_weights(module, method, folder)
    with writing(folder):
        tokenizer.save_pretrained(str(folder))
        card.write(folder)
        describe(folder, card, evidence)


def describe(folder: Path, card: Card, evidence: Evidence | None) -> None:
    """Put what is known of a winner beside it, for programs and, as a README, for people."""
    if evidence:
        evidence.write(folder)
    readme.write(folder, card, evidence)


def load(folder: str | Path, device: str = "cpu", *, trust_remote_code: bool = False) -> Winner:
    """Load a winner that a study saved.

    Args:
        folder: of the winner.
        device: where it is to predict.
        trust_remote_code: run code that its base model brings, where its study did; a winner from elsewhere may name
            any model.

    Raises:
        UserInputError: the folder is no winner, its base model or its method is not installed here, or it needs code
            that is not trusted.
    """
    folder = Path(folder)
    card = Card.read(folder)
    if card.trust_remote_code and not trust_remote_code:
        raise UserInputError(
            f"{folder} needs code that its base model {card.base_model} brings, which is not run unasked; if you trust "
            "that model, load the winner with `trust_remote_code=True` (`--trust-remote-code`)."
        )
    task = tasks.get(card.task)
    base = models.load(
        locate(card.base_model, Path.cwd()),
        auto_class=task.auto_class,
        task=task.kind,
        peft_task_type=task.peft_task_type,
        seed=card.seed,
        trust_remote_code=card.trust_remote_code,
        config_overrides=task.config_overrides(card.labels),
        quantized=card.quantization,
    )
    module = read_weights(base, lambda: registry.discover()[card.method], card.params, folder, seed=card.seed)
    # A quantized base model lives on the GPU, wherever the rest was asked for.
    at = device if card.quantization == NONE else "cuda"
    return Winner(module.eval(), base.tokenizer, card, base.spec, Evidence.read(folder), at)


def _of_files(files: Mapping[str, bytes], device: str) -> Winner:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return load(folder, device, trust_remote_code=True)  # who unpickles runs what is in the pickle anyway
