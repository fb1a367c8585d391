"""A finished study in Python: its report, and each picture of the report."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError
from autopeft.reporting import page
from autopeft.reporting.content import gather
from autopeft.reporting.plots import draw
from autopeft.study.folder import REPORT

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.reporting.plots import Plot

HEIGHT = 640
"""Height of a report in a notebook, in pixels."""

LACKS = {
    "leads": "no trial of another candidate is complete",
    "fronts": "no trial is complete",
    "curves": "no trial has reached a rung",
    "importance": "too few trials are complete to tell what mattered",
    "budget": "the study has no limit in `budget`",
    "confusion": "the task has no classes, has more than 30, or no winner was scored",
    "residuals": "the task does not predict numbers, or no winner was scored",
}
"""Why a study has no picture of that name."""


@dataclass(frozen=True)
class ReportPage:
    """A report as a file. A notebook displays it; `os.fspath` and `open` take it as a path.

    Attributes:
        path: of the HTML file, which needs no other file.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def open(self) -> None:
        """Show it in the web browser."""
        webbrowser.open(self.path.absolute().as_uri())

    def _repr_html_(self) -> str:
        content = escape(self.path.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{content}" style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'


class StudyViews:
    """The report and its pictures, of the study in `folder`.

    Each picture is a `Plot`, which a notebook displays: `.figure` is the matplotlib figure, `.png()` and `.svg` are the
    picture in a file's form, and `.alt` says in words what it shows.
    """

    folder: Path

    def report(self) -> ReportPage:
        """The report that `autopeft report` writes: a page in the output folder."""
        path = self.folder / REPORT
        if not path.is_file():
            page.write(page.render(gather(self.folder)), path)
        return ReportPage(path)

    def plot_leads(self) -> Plot:
        """How sure each lead of the winner is, with its interval."""
        return self._plot("leads")

    def plot_fronts(self) -> Plot:
        """What a score costs: parameters, size, memory and time against the score."""
        return self._plot("fronts")

    def plot_curves(self) -> Plot:
        """The score of each trial after each rung."""
        return self._plot("curves")

    def plot_importance(self) -> Plot:
        """Which settings mattered for the score."""
        return self._plot("importance")

    def plot_budget(self) -> Plot:
        """How much of each limit candidates needed."""
        return self._plot("budget")

    def plot_confusion(self) -> Plot:
        """The held-out rows of each class, by what the winner answered."""
        return self._plot("confusion")

    def plot_residuals(self) -> Plot:
        """The number of each held-out row, by what the winner answered."""
        return self._plot("residuals")

    @cached_property
    def _plots(self) -> dict[str, Plot]:
        return {plot.name: plot for plot in draw(gather(self.folder))}

    def _plot(self, name: str) -> Plot:
        if name not in self._plots:
            there = ", ".join(f"plot_{known}" for known in self._plots if known in LACKS) or "none"
            raise UserInputError(f"this study has nothing to show in plot_{name}: {LACKS[name]}. It has: {there}.")
        return self._plots[name]
