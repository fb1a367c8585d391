"""What a task kind is: how rows become tensors, tensors a loss, and outputs predictions and a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autopeft.models.row_tokenizer import Truncation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import torch

    from autopeft.models.row_tokenizer import RowTokenizer


@dataclass(frozen=True)
class Encoded:
    """Rows as tokens: per column one flat array of every row's values, cut at the shared `offsets`.

    Attributes:
        columns: name (`input_ids`, `token_type_ids`) → int32 values of all rows in a line.
        offsets: int64 `[rows + 1]`; row i is `offsets[i]:offsets[i + 1]`.
        labels: what the rows teach, int64 `[rows]`.
        padding: the value that fills each column up to a batch's longest row.
        states: float32 `[tokens, width]`, one for each token of `input_ids`, where a model starts from them
            (`autopeft.training.trunk_cache`); a batch then holds `trunk_states` `[rows, length, width]`.
        whole: tokens of each row before it was cut, int64 `[rows]`; None where none was.
    """

    columns: Mapping[str, np.ndarray]
    offsets: np.ndarray
    labels: np.ndarray
    padding: Mapping[str, int]
    states: np.ndarray | None = None
    whole: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 `[rows]`."""
        return np.diff(self.offsets)

    @property
    def truncated(self) -> Truncation:
        """What was lost of rows that were too long."""
        lengths = self.lengths
        lost = (lengths if self.whole is None else self.whole) - lengths
        return Truncation(len(self), int((lost > 0).sum()), int((lost + lengths).sum()), int(lost.sum()))

    def batch(self, rows: Sequence[int] | np.ndarray, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """Tensors of the given rows, right-padded to the longest: columns and `attention_mask` `[rows, length]`."""
        import torch

        lengths = self.lengths[rows]
        width = int(lengths.max())
        arrays: dict[str, np.ndarray] = {
            name: np.full((len(rows), width), self.padding[name], dtype=np.int64) for name in self.columns
        }
        mask = np.zeros((len(rows), width), dtype=np.int64)
        if self.states is not None:
            arrays["trunk_states"] = np.zeros((len(rows), width, self.states.shape[1]), dtype=np.float32)
        for position, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            start = self.offsets[row]
            mask[position, :length] = 1
            for name, values in self.columns.items():
                arrays[name][position, :length] = values[start : start + length]
            if self.states is not None:
                arrays["trunk_states"][position, :length] = self.states[start : start + length]
        arrays |= {"attention_mask": mask, "labels": self.labels[rows]}
        return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}


class TaskKind(ABC):
    """One kind of task.

    Class attributes:
        kind: its name in study files.
        peft_task_type: peft's name for it (`peft.TaskType`).
        auto_class: the transformers class that puts the head on.
        inputs: the input columns a row needs, each also a key of [data] that names the user's column.
    """

    kind: ClassVar[str]
    peft_task_type: ClassVar[str]
    auto_class: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]

    @abstractmethod
    def config_overrides(self, labels: Sequence[str]) -> dict[str, Any]:
        """What the model's configuration must say for these labels."""

    @abstractmethod
    def encode(self, frame: pd.DataFrame, tokenizer: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Tokenise rows; a frame without a `label` column gets labels of zero."""

    @abstractmethod
    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean loss over the batch's rows, a scalar in float32."""

    def weight(self, batch: Mapping[str, torch.Tensor]) -> int:
        """What `loss` is a mean over, so that the parts of a batch can be weighed: its rows."""
        return len(batch["labels"])

    @abstractmethod
    def predict(self, outputs: Any) -> torch.Tensor:
        """What the outputs say of each row: class probabilities `[rows, classes]` for classification."""

    @abstractmethod
    def score(self, metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
        """The metric over rows; `predictions` is what `predict` gave, rows in a line.

        Raises:
            SpecError: the task has no such metric.
        """

    @abstractmethod
    def baseline(self, metric: str, train: np.ndarray, test: np.ndarray) -> float:
        """The metric of the best answer that looks at no input, such as always the most frequent training label."""
