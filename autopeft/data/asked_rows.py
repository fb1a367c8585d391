"""Rows to answer: a table with the columns that a winner was trained on, read in blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from autopeft.common.exceptions import DataError, quoted
from autopeft.data import image_folder
from autopeft.data.cell_readers import readers
from autopeft.data.cells import Texts
from autopeft.data.missing import without_empty
from autopeft.data.picture import Picture
from autopeft.data.table import Table, nothing_in, open_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from autopeft.data.cell_readers import Column

BLOCK = 1024
"""Number of rows answered at a time."""


@dataclass(frozen=True)
class AskedRows:
    """Rows to answer.

    Attributes:
        table: where they are.
        names: the table's name for each input, by key.
        kept: columns of the table that are repeated beside the answers.
        read: converters of the inputs whose cells do not become text, by key.
    """

    table: Table
    names: Mapping[str, str]
    kept: Sequence[str] = ()
    read: Mapping[str, Callable[[object], Any]] = field(default_factory=dict)

    def check(self, advice: str = "") -> None:
        """Read every input once, so that no row is answered if another one cannot be.

        Args:
            advice: what else to do about an empty cell, besides filling it or removing the row.

        Raises:
            DataError: there is no row, a cell is empty or not a single value, or the table cannot be read.
        """
        texts, count = Texts(blank=True, others=self.read), 0
        for block in self.table.blocks([*self.names.values()]):
            count += len(block)
            for key, name in self.names.items():
                texts.of(key, block[name])
        if not count:
            raise nothing_in(self.table.called)
        texts.check(self.table.called, self.names, self.table.row_name, advice)

    def blocks(self, rows: int = BLOCK) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """The inputs by their keys, and the kept columns, for `rows` rows at a time; the index counts rows."""
        for block in self.table.blocks([*self.names.values(), *self.kept]):
            for start in range(0, len(block), rows):
                few = block.iloc[start : start + rows]
                inputs = pd.DataFrame({key: self._cells(key, few[name]) for key, name in self.names.items()})
                images = {name: inputs[key] for key, name in self.names.items() if key in self.read}
                kept = {name: _shown(few[name], images.get(name)) for name in self.kept}
                yield inputs, pd.DataFrame(kept, index=few.index)

    def inputs(self) -> pd.DataFrame:
        """The inputs of all rows, checked.

        Raises:
            DataError: as `check`.
        """
        self.check()
        return pd.concat([inputs for inputs, _ in self.blocks()])

    def _cells(self, key: str, cells: pd.Series[Any]) -> pd.Series[Any]:
        if key not in self.read:
            return cells
        found = Texts(blank=True, others=self.read).of(key, cells)
        return pd.Series(found, index=cells.index, dtype=object)


def _shown(cells: pd.Series[Any], read: pd.Series[Any] | None) -> pd.Series[Any]:
    """Cells unchanged, but an image's bytes are replaced by its name."""
    if read is None:
        return cells
    shown = [
        one.name if isinstance(one, Picture) and not isinstance(cell, str) else cell
        for cell, one in zip(cells, read, strict=True)
    ]
    return pd.Series(shown, index=cells.index, dtype=object)


def open_rows(
    source: Path,
    names: Mapping[str, str],
    columns: Iterable[Column],
    note: Callable[[str], None],
    sheet: str | None = None,
    *,
    drop: bool = False,
) -> AskedRows:
    """Rows to answer: a table, or a folder or a file of images, whose relative paths start where the table is.

    Args:
        source: what to read.
        names: the name of each input in the study's table, by key. A table with the keys themselves as names is read
            too.
        columns: of the task, which say where images are.
        note: called with what was assumed or left out.
        sheet: of a spreadsheet; default: the first.
        drop: leave out rows with an empty cell in a column of an input, as a study does; `note` is called with their
            number. Otherwise a text of white space alone is answered like any other.

    Raises:
        DataError: it cannot be read, lacks a column, or every row was left out.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist; give the path of a file, or of a folder of images.")
    images = {column.key for column in columns if column.holds == "image"}
    if images == {*names} and source.suffix.lower() in image_folder.ENDINGS:
        (key,) = names
        row = pd.DataFrame({key: [str(source)]}, index=pd.RangeIndex(1, 2))
        table = Table(str(source), [key], lambda wanted: iter([row[[*wanted]]]))
    else:
        table = open_table(source, note=note, sheet=sheet)
    named = by_key(names, table.names)
    table.require(dict(zip(named.values(), named.values(), strict=True)), "Rename the right one.")
    once = [name for name in table.names if [*table.names].count(name) == 1]
    if len(once) < len(table.names):
        several = ", ".join(quoted(name) for name in dict.fromkeys(table.names) if name not in once)
        note(f"{table.called} has several columns of the same name ({several}); they are left out of the answers.")
    if drop:
        table, dropped = without_empty(table, named, columns)
        if dropped.rows:
            note(dropped.told)
    return AskedRows(table, named, once, readers(columns, table.folder))


def by_key(names: Mapping[str, str], found: Iterable[str]) -> dict[str, str]:
    """The column of each key: with the names of the study's table, or, if one is missing, named as the keys.

    Args:
        names: the name of each column in the study's table, by key.
        found: names of the columns in these rows.
    """
    there = {*found}
    return dict(zip(names, names, strict=True)) if {*names} <= there and not {*names.values()} <= there else {**names}
