"""A table with one line for each row, on a screen of any width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

GAP = 2
"""Number of spaces between two columns."""

NOTHING = "–"
"""The text of an empty cell."""

LEAST = 44
"""Smallest width of a column that may be cut, as long as another column can be left out instead."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its heading.
        rank: where there is no room, the column of the highest rank is left out first; 0 always stays.
        number: whether it is aligned to the right.
        cut: whether its cells may be cut, which shows as an ellipsis.
    """

    name: str
    rank: int = 0
    number: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Row:
    """The cells of a row, one for each column, and Rich's style of it."""

    cells: Sequence[str]
    style: str = ""


@dataclass(frozen=True)
class LineTable:
    """Rows of one line each.

    Where there is no room for all columns, the least important ones are left out; then cells are cut. A column that may
    be left out is also left out if all its cells are empty.

    Attributes:
        columns: from left to right.
        rows: from top to bottom.
        title: above the headings; "" for none.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it for Rich."""
        widths = self.widths(options.max_width)
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, collapse_padding=False)
        for place, width in widths.items():
            column = self.columns[place]
            table.add_column(
                Text(column.name, "bold"),
                justify="right" if column.number else "left",
                width=width,
                no_wrap=True,
                overflow="ellipsis",
            )
        for row in self.rows:
            table.add_row(*(Text(_line(row.cells[place])) for place in widths), style=row.style or None)
        if self.title:
            yield Text(f"\n{self.title}", "italic")
        yield table

    def widths(self, most: int) -> dict[int, int]:
        """The width of each shown column, by place, so that a line is at most `most` wide."""
        found = {
            place: max([cell_len(column.name), *(cell_len(_line(row.cells[place])) for row in self.rows)])
            for place, column in enumerate(self.columns)
            if any(row.cells[place] not in ("", NOTHING) for row in self.rows) or not column.rank
        }
        least = {place: min(width, LEAST) if self.columns[place].cut else width for place, width in found.items()}
        spare = sorted((place for place in found if self.columns[place].rank), key=lambda at: self.columns[at].rank)
        while spare and _total(least.values()) > most:
            out = spare.pop()
            del least[out], found[out]
        for place in sorted(found, key=lambda place: (self.columns[place].cut, found[place]), reverse=True):
            over = _total(found.values()) - most
            found[place] = max(found[place] - max(over, 0), 1)
        return found


def _total(widths: Collection[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _line(cell: str) -> str:
    return " ".join(cell.split())
