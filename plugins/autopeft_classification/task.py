"""One label for one text, or for two that are read together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import Classification, Column, Encoded, Field, token_fields
from autopeft_classification import fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from autopeft import Fit, RowTokenizer, TableProfile


class TextClassification(Classification):
    """Single-label classification of one text, or of all texts in `columns`."""

    contract = 1
    kind = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    peft_task_type = "SEQ_CLS"
    columns: tuple[Column, ...] = (Column("text"), Column("label", "label", given=False))

    def fits(self, table: TableProfile) -> Fit | None:
        """A text and a column of few values that repeat."""
        return fit.one_label(table)

    def example(self) -> pd.DataFrame:
        """Words of praise and of blame, and a second text about them."""
        import pandas as pd

        praise, blame = ("good", "fine", "a joy to use", "well made"), ("bad", "poor", "broken on the first day")
        said = [*((words, "praise") for words in praise * 2), *((words, "blame") for words in blame * 2)]
        rows = pd.DataFrame({"text": [f"this is {words}" for words, _ in said], "label": [label for _, label in said]})
        return rows.assign(text_pair="what was said of it")[[column.key for column in self.columns]]

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Tokenise the texts of a row together."""
        tokens = reader(*(rows[name].tolist() for name in self.inputs))
        truths = self.truths(rows, labels)
        fields = token_fields(tokens.columns, tokens.offsets, reader.tokenizer.pad_token_id)
        return Encoded({**fields, "labels": Field(truths)}, truths, axis="input_ids", whole=tokens.whole)


class TextPairClassification(TextClassification):
    """Single-label classification of a pair of texts in one sequence, such as entailment or paraphrase."""

    kind = "text-pair-classification"
    columns: tuple[Column, ...] = (
        Column("text"),
        Column("text_pair"),
        Column("label", "label", given=False),
    )

    def fits(self, table: TableProfile) -> Fit | None:
        """Two texts that belong together, and a column of few values."""
        return fit.pair(table)
