"""One label for one text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autopeft.tasks.base import Encoded, TaskKind
from autopeft.tasks.metrics import scorer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import torch

    from autopeft.models.row_tokenizer import RowTokenizer


class TextClassification(TaskKind):
    """Single-label classification of one text, or of as many as `inputs` names."""

    kind = "text-classification"
    peft_task_type = "SEQ_CLS"
    auto_class = "AutoModelForSequenceClassification"
    inputs: ClassVar[tuple[str, ...]] = ("text",)

    def config_overrides(self, labels: Sequence[str]) -> dict[str, Any]:
        """Name the classes and state that each row has one."""
        return {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "problem_type": "single_label_classification",
        }

    def encode(self, frame: pd.DataFrame, tokenizer: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Tokenise the input columns together."""
        rows = tokenizer(*(frame[name].tolist() for name in self.inputs))
        padding = {"input_ids": tokenizer.tokenizer.pad_token_id, "token_type_ids": 0}
        index = {label: position for position, label in enumerate(labels)}
        encoded = [index[label] for label in frame["label"]] if "label" in frame else [0] * len(frame)
        return Encoded(
            columns=rows.columns,
            offsets=rows.offsets,
            labels=np.asarray(encoded, np.int64),
            padding={name: padding[name] for name in rows.columns},
            whole=rows.whole,
        )

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of `outputs.logits` `[rows, classes]`, in float32."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs.logits.float(), batch["labels"])

    def predict(self, outputs: Any) -> torch.Tensor:
        """Class probabilities `[rows, classes]`, float32."""
        logits: torch.Tensor = outputs.logits
        return logits.float().softmax(dim=-1)

    def score(self, metric: str, labels: np.ndarray, predictions: np.ndarray) -> float:
        """The metric of the most probable class of each row."""
        return scorer(metric)(labels, predictions.argmax(axis=-1))

    def baseline(self, metric: str, train: np.ndarray, test: np.ndarray) -> float:
        """The metric of always answering the most frequent training label."""
        return scorer(metric)(test, np.full_like(test, np.bincount(train).argmax()))


TASK = TextClassification()
