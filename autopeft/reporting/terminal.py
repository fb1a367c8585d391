"""A report on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from autopeft.reporting import wording
from autopeft.reporting.wrapped_table import WrappedTable

if TYPE_CHECKING:
    from autopeft.reporting.content import Report

BAR, SHOWN_SHARES = 30, 6


def show(report: Report) -> RenderableType:
    """The findings first, then the tables behind them."""
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
    return Group(Text(f"\n{content.title}", "italic"), WrappedTable(content))


def _bar(name: str, share: float) -> Text:
    return Text(f"  {name:<28} ") + Text("█" * round(BAR * share), "blue") + Text(f" {share:.0%}")
