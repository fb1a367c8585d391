"""Counts and leaves out rows with empty cells, for a study or a prediction that asks for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import DataError, quoted
from autopeft.data.cell_readers import fillable, readers
from autopeft.data.cells import Texts

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from autopeft.data.cell_readers import Column
    from autopeft.data.table import Table

DROP = "drop"
"""The value of `on_missing` in [data] with which such rows are left out."""

ADVICE = ', or set `on_missing = "drop"` in [data] to leave such rows out'
"""What else can be done about an empty cell in a study's rows."""


@dataclass(frozen=True)
class Dropped:
    """What was left out of a table.

    Attributes:
        rows: number of rows.
        told: the same in a sentence; "" where there are none.
    """

    rows: int
    told: str


def without_empty(table: Table, wanted: Mapping[str, str], columns: Iterable[Column]) -> tuple[Table, Dropped]:
    """The table without the rows that have an empty cell in a column that is read.

    A cell is empty if `Texts` finds it so, or if it is only white space that cannot be read. The table is read once for
    that; nothing of it is kept.

    Args:
        table: the rows.
        wanted: the task's name for a column → its name in the table.
        columns: of the task.

    Raises:
        DataError: every row has an empty cell, or the table cannot be read.
    """
    columns = [*columns]
    texts = Texts(others=readers(columns, table.folder), fillable=fillable(columns))
    found: dict[str, set[Hashable]] = {}
    count = 0
    for block in table.blocks([*wanted.values()]):
        count += len(block)
        for key, name in wanted.items():
            rows = {row for row, cell in zip(block.index, block[name].array, strict=True) if _empty(texts, key, cell)}
            found.setdefault(name, set()).update(rows)
    every = set[Any]().union(*found.values())
    if not every:
        return table, Dropped(0, "")
    parts = [f"{quoted(name)} in {len(rows):,}" for name, rows in found.items() if rows]
    if len(every) == count:
        raise DataError(
            f"{table.called} must have at least one row without empty cells, but has none (empty: {', '.join(parts)}); "
            "fill them, or name other columns in [data]."
        )

    def cells(names: Sequence[str]) -> Iterator[pd.DataFrame]:
        for block in table.cells(names):
            yield block[~block.index.isin(every)]

    verb = "was" if len(every) == 1 else "were"
    told = (
        f"{len(every):,} of the {count:,} rows of {table.called} {verb} left out for an empty cell: {', '.join(parts)}."
    )
    return replace(table, cells=cells), Dropped(len(every), told)


def _empty(texts: Texts, key: str, cell: object) -> bool:
    _, error, empty = texts.made(key, cell)
    return empty or (error is not None and isinstance(cell, str | bytes) and not cell.strip())
