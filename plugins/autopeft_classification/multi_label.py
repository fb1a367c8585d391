"""Any number of labels for one text, or for two that are read together, such as the emotions it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import Column, Encoded, Field, MultiLabel, token_fields
from autopeft_classification import fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from autopeft import Fit, RowTokenizer, TableProfile


class TextMultiLabel(MultiLabel):
    """Any number of labels of a text, or of a pair of texts if [data] names the column `text_pair`."""

    contract = 1
    kind = "multi-label-classification"
    auto_class = "AutoModelForSequenceClassification"
    peft_task_type = "SEQ_CLS"
    columns: tuple[Column, ...] = (
        Column("text"),
        Column("text_pair", optional=True),
        MultiLabel.labels_column,
    )

    def fits(self, table: TableProfile) -> Fit | None:
        """A text, and labels in a list, in a text with a mark between them, or in columns of 0 and 1."""
        return fit.several_labels(table)

    def example(self) -> pd.DataFrame:
        """Which of three things a text praises; some praise none."""
        import pandas as pd

        kinds = ["food", "food,staff", "", "place", "food,place", "staff,food,place", "staff", "", "place,staff"]
        texts = [" ".join(f"the {word} was good" for word in kind.split(",") if word) or "so so" for kind in kinds]
        return pd.DataFrame({"text": texts, "label": kinds})

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Tokenise the texts of a row together."""
        import numpy as np

        tokens = reader(*(rows[name].tolist() for name in self.inputs))
        truths = self.truths(rows, labels)
        fields = token_fields(tokens.columns, tokens.offsets, reader.tokenizer.pad_token_id)
        taught = {"labels": Field(truths.astype(np.float32))}
        return Encoded({**fields, **taught}, truths, axis="input_ids", whole=tokens.whole)
