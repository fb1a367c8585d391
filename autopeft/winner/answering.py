"""What a winner does with rows before its model, and with the model's answers after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft.common.exceptions import DataError
from autopeft.data.cell_readers import readers
from autopeft.data.cells import Texts
from autopeft.winner.named_rows import keyed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from autopeft.data.encoded import Encoded
    from autopeft.models.reader import Reader
    from autopeft.study.card import Card
    from autopeft.tasks.contract import Task


@dataclass(frozen=True)
class Answering:
    """What a winner does with rows before and after its model.

    Attributes:
        task: its kind of task, with settings and facts.
        card: what it is.
        reader: reads the rows.
    """

    task: Task
    card: Card
    reader: Reader

    def cells(self, rows: Any, *, taught: bool = False) -> pd.DataFrame:
        """The input columns as texts or images, by the rule of training; and what the rows teach, if asked.

        Raises:
            DataError: as `Winner.answers`.
        """
        import pandas as pd

        inputs = self.task.inputs
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
            raise DataError("prediction needs rows: a frame, or a list of inputs; put a single input into a list.")
        if not isinstance(rows, pd.DataFrame):
            rows = pd.DataFrame({inputs[0]: pd.Series(list(rows), dtype=object)})
        wanted = (*inputs, *(self.task.taught_columns if taught else ()))
        rows = keyed(rows, self.card.called(wanted))
        texts = Texts(blank=True, others=readers(self.task.columns, None))
        found = pd.DataFrame({name: texts.of(name, rows[name]) for name in wanted}, index=rows.index)
        for name, fault in texts.empty.items():
            raise DataError(f'prediction needs every input, but row {fault.row} has an empty "{name}".')
        texts.check("the rows to predict", {name: name for name in wanted})
        return found

    def encoded(self, cells: pd.DataFrame) -> Encoded:
        """Cells as arrays.

        Raises:
            DataError: a row has no token.
        """
        encoded = self.task.encode(cells, self.reader, self.card.labels)
        if not encoded.lengths.all():
            row = cells.index[int(encoded.rows_of(np.array([encoded.lengths.argmin()]))[0])]
            raise DataError(f"prediction needs a word in every row, but the tokenizer finds no token in row {row}.")
        return encoded

    def together(self, each: Sequence[np.ndarray], cells: pd.DataFrame) -> np.ndarray:
        """The mean of the answers `[rows, …]` of one or more models.

        Raises:
            DataError: an answer is not finite.
        """
        found: np.ndarray = np.mean(each, axis=0) if len(each) > 1 else each[0]
        if not np.isfinite(found).all():
            row = cells.index[int(np.isfinite(found).reshape(len(found), -1).all(axis=1).argmin())]
            raise DataError(
                f"prediction needs finite outputs, but those for row {row} are not finite; train the model again."
            )
        return found
