"""The format of a report's values, and the tables that its page and its terminal form share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.budget.limits import extra_columns
from autopeft.common.units import format_bytes, format_seconds
from autopeft.reporting.plots import name_of
from autopeft.reporting.statistics import Difference, in_a_word
from autopeft.study.states import WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.reporting.content import Report
    from autopeft.study.record import TrialRecord
    from autopeft.study.report_section import ReportSection

SHOWN_TRIALS = 100

SURE = ("95% interval", "p", "verdict")
"""Columns that say how sure a difference is."""


@dataclass(frozen=True)
class Table:
    """A table in words; `numbers` says which columns are aligned to the right, `marked` which row stands out.

    In a `shaded` table the numbers from 0 to 1 have a shade.
    """

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: tuple[int, ...] = ()
    marked: int | None = None
    shaded: bool = False

    def shade(self, cell: str, *, number: bool) -> int | None:
        """How dark a cell is, from 0 to 100; None where it has no shade."""
        try:
            value = float(cell) if self.shaded and number else -1.0
        except ValueError:
            return None
        return round(100 * value) if 0 <= value <= 1 else None

    def cells(self, row: Sequence[str]) -> list[tuple[str, bool]]:
        """The cells of a row, each with whether it is a number."""
        return [(cell, place in self.numbers) for place, cell in enumerate(row)]


def headings(report: Report) -> dict[str, str]:
    """The headings of the parts that are not empty, in order, by the name of their place in the page."""
    found: list[tuple[str, str, object]] = [
        ("detail", "The findings in detail", True),
        ("leads", "Is the lead significant?", report.comparisons),
        ("simplest", "Is there a simpler choice?", report.simplest),
        ("fronts", "Score against cost", report.fronts),
        ("test", "Held-out rows", report.test),
        *((name_of(section.title), section.title, True) for section in report.sections),
        ("importance", "Which settings mattered", report.importances),
        ("curves", "Learning curves", report.curves),
        ("budget", "What the budget refused", True),
        ("cost", "What the search cost", True),
        ("trials", "All trained candidates", report.trials),
    ]
    return {name: title for name, title, there in found if there}


def trials(report: Report) -> Table:
    """The trials that were trained, the best first."""
    extra = extra_columns(report.trials)
    rows = [
        (*_trial(record, report), *(limit.cell(record) for limit in extra)) for record in report.trials[:SHOWN_TRIALS]
    ]
    left = len(report.trials) - len(rows)
    title = "Complete trials by score, then the others"
    title += f" (the first {SHOWN_TRIALS}; see MLflow for the other {left})" if left else ""
    columns = (
        "trial", "candidate", f"mean {report.metric}", "folds", "trained parameters", "saved size", "peak memory",
        "time", "state",
    )  # fmt: skip
    own, numbers = (limit.measure for limit in extra), (9 + place for place in range(len(extra)))
    return Table(title, (*columns, *own), rows, (0, 2, 4, 5, 6, 7, *numbers), 0 if report.winner else None)


def of_section(section: ReportSection) -> list[Table]:
    """The table of a section that the kind of task adds, if it has one."""
    table = section.table
    return (
        [Table(section.title, table.columns, table.rows, table.numbers, shaded=table.shaded)]
        if table and table.rows
        else []
    )


def comparisons(report: Report) -> Table:
    """Every lead with its interval."""
    rows = []
    for c in report.comparisons:
        names = [f"{s.method}, trial {s.number}{' (default)' * s.default}" for s in (c.ahead, c.behind)]
        rows.append((*names, f"{c.lead:+.4f}", *_sure(c.difference), c.word))
    return Table("Leads in cross-validation", ("ahead", "behind", "lead", *SURE), rows, (2, 3, 4))


def against(report: Report) -> Table:
    """How far the winner scores above all others on the held-out rows."""
    rows = []
    for c in report.test.comparisons if report.test else []:
        gap = c.difference.mean
        rows.append((c.other, f"{gap:+.4f}", *_sure(c.difference), in_a_word(gap, c.real)))
    title = "How far the winner scores above the others on the held-out rows"
    return Table(title, ("compared with", "difference", *SURE), rows, (1, 2, 3))


def _sure(difference: Difference | None) -> tuple[str, str]:
    if difference is None:
        return "–", "–"
    return f"{difference.low:+.4f} to {difference.high:+.4f}", f"{difference.p:.2g}"


def limits(report: Report) -> Table:
    """What each limit refused, and how near the admitted proposals came."""
    rows = [
        (use.limit, use.value, str(use.refused), "–" if use.closest is None else f"{use.closest:.1%}")
        for use in report.budget.limits
    ]
    return Table("Limits", ("limit", "value", "refused", "most used by an admitted proposal"), rows, (1, 2, 3))


def spending(report: Report) -> Table:
    """Where the time went."""
    total = sum(report.cost.seconds.values()) or 1.0
    rows = [(what, format_seconds(value), f"{value / total:.0%}") for what, value in report.cost.seconds.items()]
    return Table("Wall time", ("spent on", "time", "share"), rows, (1, 2))


def scores(report: Report) -> Table:
    """The scores on the held-out rows."""
    found = report.test.scores if report.test else []
    rows = [
        (
            entry.name,
            "–" if entry.score is None else f"{entry.score:.4f}",
            "–" if entry.interval is None else f"{entry.interval[0]:.4f} to {entry.interval[1]:.4f}",
            entry.note,
        )
        for entry in found
    ]
    return Table("Scores on the held-out rows", ("model", report.metric, "95% interval", ""), rows, (1, 2), 0)


def classes(report: Report) -> Table:
    """The winner class by class, with the mean of the classes."""
    found = report.test.classes if report.test else []
    rows: list[tuple[str, ...]] = [
        (c.label, f"{c.precision:.3f}", f"{c.recall:.3f}", f"{c.f1:.3f}", str(c.support)) for c in found
    ]
    if found:
        means = [sum(getattr(c, name) for c in found) / len(found) for name in ("precision", "recall", "f1")]
        rows.append(("mean of the classes", *(f"{mean:.3f}" for mean in means), str(sum(c.support for c in found))))
    return Table("The winner, class by class", ("class", "precision", "recall", "F1", "rows"), rows, (1, 2, 3, 4))


def confusion(report: Report) -> Table:
    """Rows of each class by predicted class."""
    test = report.test
    if test is None:
        return Table("", (), [])
    rows = [(label, *map(str, counts)) for label, counts in zip(test.labels, test.confusion, strict=True)]
    title = "Confusion matrix: rows are true classes, columns predicted classes"
    return Table(title, ("true class", *test.labels), rows, tuple(range(1, len(test.labels) + 1)))


def front(report: Report) -> Table:
    """The trials on any Pareto front, with what they cost."""
    on = {number for found in report.fronts for number in found.best}
    costs = {found.cost: {point.number: point.cost for point in found.points} for found in report.fronts}
    units = {found.cost: found.unit for found in report.fronts}
    rows = []
    for record in (record for record in report.trials if record.number in on):
        best = [found.cost for found in report.fronts if record.number in found.best]
        values = [
            ("–" if record.number not in costs[cost] else cell(costs[cost][record.number], units[cost]))
            + " *" * (cost in best)
            for cost in costs
        ]
        rows.append((str(record.number), record.method, f"{record.score:.4f}", *values))
    columns = ("trial", "method", f"mean {report.metric}", *costs)
    return Table("Trials on a Pareto front; a star marks the cost", columns, rows, (0, *range(2, len(columns))))


def cell(value: float, unit: str) -> str:
    """A cost with its unit."""
    if unit == "bytes":
        return format_bytes(value)
    return format_seconds(value) if unit == "seconds" else f"{value:,.0f}"


def _trial(record: TrialRecord, report: Report) -> tuple[str, ...]:
    memory = record.measured_memory or record.predicted_memory
    saved = "–" if record.saved_bytes is None else format_bytes(record.saved_bytes)
    name = record.name + " (default)" * (record.number in report.defaults)
    state = WORDS[record.state] + " (machine failure)" * record.machine
    if record.reason:
        state += f": {record.reason}"
    return (
        str(record.number),
        name,
        "–" if record.score is None else f"{record.score:.4f}",
        " ".join(f"{score:.3f}" for score in record.fold_scores),
        "–" if record.trainable_params is None else f"{record.trainable_params:,}",
        saved,
        format_bytes(memory) if memory else "–",
        format_seconds(record.seconds),
        state,
    )
