"""Save a winner, and load it: its weights, its tokenizer and a card with all that must be known of it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft import model as models
from autopeft import registry, tasks
from autopeft.exceptions import DataError, MethodError, UserInputError
from autopeft.locate import locate
from autopeft.quantization import NONE
from autopeft.training import Device, evaluate
from autopeft.weights_file import read_weights, write_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from torch import nn

    from autopeft.method import PeftMethod
    from autopeft.search_space import ParamValue

CARD = "autopeft.json"


@dataclass(frozen=True)
class Card:
    """What must be known to load a winner: written beside the weights as `autopeft.json`.

    Attributes:
        base_model: as the study file names it, so that `package:` and hub references hold on any machine.
        task: the task kind.
        labels: class names in the order of the model's outputs.
        max_length: tokens of an input, at most.
        method: the method's name.
        params: its params.
        plugin: distribution and version that brought it.
        seed: of the head's initial values.
        trust_remote_code: whether the base model brings code to run.
        quantization: of the base model it was trained on, and is loaded with: "none", "8bit" or "4bit".
        autopeft: version that wrote this.
    """

    base_model: str
    task: str
    labels: tuple[str, ...]
    max_length: int
    method: str
    params: Mapping[str, ParamValue]
    plugin: str
    seed: int
    trust_remote_code: bool = False
    quantization: str = NONE
    autopeft: str = ""


class Winner:
    """A trained model with its tokenizer and labels, in float32, ready to predict."""

    def __init__(self, module: nn.Module, tokenizer: Any, card: Card, device: str = "cpu") -> None:
        self.module = module.to(device)
        self.tokenizer = tokenizer
        self.card = card
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
            DataError: a column is missing, or there are no rows.
        """
        import pandas as pd

        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame({self.inputs[0]: list(rows)})
        missing = [name for name in self.inputs if name not in frame]
        if missing or frame.empty:
            lack = f"no column {missing[0]!r}" if missing else "no row"
            raise DataError(f"prediction needs rows with the columns {', '.join(self.inputs)}, but got {lack}.")
        encoded = self._task.encode(
            frame[list(self.inputs)].astype(str), self.tokenizer, self.card.labels, self.card.max_length
        )
        return evaluate(self.module, encoded, [np.arange(len(frame))], self._task, self._device)[0]

    def predict(self, rows: pd.DataFrame | Sequence[str]) -> list[str]:
        """The most probable label of each row."""
        return [self.card.labels[index] for index in self.predict_proba(rows).argmax(axis=-1)]

    def save(self, folder: str | Path) -> None:
        """Write the winner to `folder`, which `load` reads.

        Raises:
            MethodError: the method's plugin is not installed.
        """
        save(self.module, registry.discover()[self.card.method], self.tokenizer, self.card, Path(folder))

    def merge(self) -> nn.Module:
        """The plain transformers model with the add-on folded in, which needs neither autopeft nor peft any more.

        Raises:
            MethodError: the method cannot be merged, or its plugin is not installed.
        """
        plain = models.merged(self.module, registry.discover()[self.card.method])
        if plain is None:
            raise MethodError(
                f'a winner can be merged where its method can, but "{self.card.method}" cannot; '
                "predict with the winner itself."
            )
        return plain


def save(module: nn.Module, method: PeftMethod, tokenizer: Any, card: Card, folder: Path) -> None:
    """Write the add-on, the head, the tokenizer and the card to `folder`; weights as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(module, method, folder)
    tokenizer.save_pretrained(str(folder))
    content = {**asdict(card), "autopeft": version("autopeft")}
    (folder / CARD).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: str | Path, device: str = "cpu") -> Winner:
    """Load a winner that a study saved.

    Raises:
        UserInputError: the folder is no winner, or its base model or its method is not installed here.
    """
    folder = Path(folder)
    card = _read_card(folder)
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
    return Winner(module.eval(), base.tokenizer, card, device if card.quantization == NONE else "cuda")


def _of_files(files: Mapping[str, bytes], device: str) -> Winner:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return load(folder, device)


def _read_card(folder: Path) -> Card:
    try:
        content = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return Card(**{**content, "labels": tuple(content["labels"])})
    except FileNotFoundError:
        raise UserInputError(f"{folder} holds no {CARD}; give the `winner` folder that `autopeft run` wrote.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserInputError(f"{folder / CARD} cannot be read: {error}. Save the winner again.") from error
