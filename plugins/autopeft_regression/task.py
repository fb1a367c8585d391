"""A number for one text, or for two that are read together, such as how alike they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import Column, Encoded, Field, Fit, Regression, token_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from autopeft import RowTokenizer, TableProfile


class TextRegression(Regression):
    """A number for a text, or for a pair of texts if [data] names the column `text_pair`."""

    contract = 1
    kind = "regression"
    auto_class = "AutoModelForSequenceClassification"
    peft_task_type = "SEQ_CLS"
    columns: tuple[Column, ...] = (
        Column("text"),
        Column("text_pair", optional=True),
        Column("label", "number", given=False),
    )

    def fits(self, table: TableProfile) -> Fit | None:
        """A text, or two that belong together by their names or were named, and a column of numbers."""
        number, text = table.number(), table.text()
        if not number or not text or number is text or number.holds not in ("number", "label"):
            return None
        if number.holds == "label" and (not number.whole or "label" not in table.named):
            return None
        texts = [one.name for one in table.pair() or (text,)]
        columns = {**dict(zip(("text", "text_pair"), texts, strict=False)), "label": number.name}
        said = f"`{text.name}` {text.said}" if len(texts) < 2 else f"`{texts[0]}` and `{texts[1]}` belong together"
        return Fit(
            columns, 0.6 if number.holds == "number" else 0.2, f"`{number.name}` holds {number.said}, and {said}."
        )

    def example(self) -> pd.DataFrame:
        """How often a text says a word."""
        import pandas as pd

        counts = [0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 0, 5]
        return pd.DataFrame({"text": ["so " * count + "it is" for count in counts], "label": list(map(str, counts))})

    def encode(self, rows: pd.DataFrame, reader: RowTokenizer, labels: Sequence[str]) -> Encoded:
        """Tokenise the texts of a row together."""
        tokens = reader(*(rows[name].tolist() for name in self.inputs))
        truths = self.truths(rows)
        fields = token_fields(tokens.columns, tokens.offsets, reader.tokenizer.pad_token_id)
        return Encoded({**fields, "labels": Field(self.scaled(truths))}, truths, axis="input_ids", whole=tokens.whole)
