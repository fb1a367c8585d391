"""A report on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autopeft.reporting import wording

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from autopeft.reporting.content import Report

BAR, SHOWN_SHARES = 30, 6
GAP = 2
"""Spaces between two columns."""


def show(report: Report) -> RenderableType:
    """The argument first, then the tables behind it."""
    titles = wording.headings(report)
    parts: list[Any] = [_heading(f"{report.study}: {report.stopped or report.state}"), *map(Text, report.main)]
    parts += [_heading(titles["detail"])]
    parts += [Padding(Text(f"• {sentence}"), (0, 0, 0, 1)) for sentence in report.headline]
    sections: list[tuple[str, str, list[wording.Table]]] = [
        ("leads", "", [wording.comparisons(report)]),
        ("fronts", "", [wording.front(report)]),
    ]
    if report.test:
        test = [wording.scores(report), wording.against(report), wording.classes(report), wording.confusion(report)]
        sections.append(("test", report.test.note, test))
    for name, sentence, tables in sections:
        shown = [_table(table) for table in tables if table.rows]
        if shown or sentence:
            parts += [_heading(titles[name]), *([Text(sentence)] if sentence else []), *shown]
    for part in report.sections:
        parts += [_heading(part.title), Text(part.text), *map(_table, wording.of_section(part))]
        parts += [Text(f"  {one.caption}") for one in part.exhibits]
    if report.importances:
        parts.append(_heading(titles["importance"]))
        for importance in report.importances:
            parts.append(Text(f"{importance.scope}: {importance.note}"))
            parts += [_bar(name, share) for name, share in list(importance.shares.items())[:SHOWN_SHARES]]
    limits = [_table(wording.limits(report))] if report.budget.limits else []
    parts += [_heading(titles["budget"]), Text(report.budget.verdict), *limits]
    parts += [_heading(titles["cost"]), Text(report.cost.verdict)]
    return Group(*parts)


def _heading(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _table(content: wording.Table) -> RenderableType:
    return Group(Text(f"\n{content.title}", "italic"), _Wrapped(content))


class _Wrapped:
    """A table whose cells are wrapped on a narrow screen: between words, where there is room for every word."""

    def __init__(self, content: wording.Table) -> None:
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
        """Of each column the width of its longest word, and more as far as there is room, first of numbers; or None."""
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


def _bar(name: str, share: float) -> Text:
    return Text(f"  {name:<28} ") + Text("█" * round(BAR * share), "blue") + Text(f" {share:.0%}")
