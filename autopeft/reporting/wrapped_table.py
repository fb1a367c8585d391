"""A table whose cells are never cut, on a screen of any width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from autopeft.reporting.wording import Table as Content

GAP = 2
"""Number of spaces between two columns."""


class WrappedTable:
    """A table whose cells wrap on a narrow screen: between words, if there is room for the longest ones."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it for Rich."""
        content = self._content
        widths = self._widths(options.max_width)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0))
        for place, (column, width) in enumerate(zip(content.columns, widths, strict=True)):
            table.add_column(
                Text(column), justify="right" if place in content.numbers else "left", overflow="fold", width=width
            )
        for place, row in enumerate(content.rows):
            table.add_row(*map(Text, row), style="bold green" if place == content.marked else None)
        yield table

    def _widths(self, most: int) -> list[int | None]:
        """The width of each column: its longest word, and more if there is room, numbers first; or None."""
        columns = list(zip(self._content.columns, *self._content.rows, strict=True))
        words = [max(cell_len(word) for cell in cells for word in cell.split() or [""]) for cells in columns]
        wanted = [max(0, *map(cell_len, cells[1:])) - word for cells, word in zip(columns, words, strict=True)]
        spare = most - sum(words) - GAP * (len(words) - 1)
        if spare < 0:
            return [None] * len(columns)
        for place in sorted(range(len(columns)), key=lambda at: (at not in self._content.numbers, wanted[at])):
            words[place] += (more := min(max(wanted[place], 0), spare))
            spare -= more
        return [*words]
