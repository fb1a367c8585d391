"""A notebook's view of a running study: one output that is updated, and stays as the final table."""

from __future__ import annotations

import importlib
from html import escape
from typing import TYPE_CHECKING, Any, Self

from autopeft.common.html_table import table
from autopeft.common.units import format_bytes
from autopeft.reporting.live_view import head
from autopeft.reporting.progress import Clock
from autopeft.reporting.short_name import short_name
from autopeft.study.states import INFEASIBLE, INTERRUPTED, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from autopeft.budget.limits import Budget
    from autopeft.budget.usage import Usage
    from autopeft.common.params import ParamValue
    from autopeft.methods.candidate import Candidate
    from autopeft.study.phase import Phase
    from autopeft.study.record import TrialRecord
    from autopeft.training.rungs import Rung

COLUMNS = ("trial", "candidate", "state", "score", "trained", "memory", "seconds")


class NotebookProgress:
    """Shows the sentences, all ended trials and the running ones. It needs only IPython, and no widgets.

    A saved notebook keeps the finished table, as any output of a cell.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.ended: list[TrialRecord] = []
        self.refused = 0
        self.current: dict[int, str] = {}
        self.defaults: Mapping[str, ParamValue] = {}
        self.phase: Phase | None = None
        self.over = False
        self._handle: Any = None

    def __enter__(self) -> Self:
        self._show()
        return self

    def __exit__(self, *_: object) -> None:
        self.current.clear()
        self.over = True
        self._show()

    def say(self, text: str) -> None:
        """Add the sentence above the table."""
        self.said.append(text)
        self._show()

    def begun(self, wanted: int, defaults: Mapping[str, ParamValue], deadline: float | None) -> None:
        """Keep the deadline, and the defaults, as the names of trials say only what differs."""
        self.clock.begin(wanted, deadline)
        self.defaults = defaults

    def entered(self, phase: Phase) -> None:
        """Show what the study is doing."""
        self.phase = phase
        self._show()

    def started(self, number: int, candidate: Candidate, usage: Usage, budget: Budget, done: int, wanted: int) -> None:
        """Show the trial below the table while it runs."""
        self.clock.start(number, done, wanted)
        memory = format_bytes(usage.memory.peak)
        name = short_name(candidate.flat, str(candidate), self.defaults)
        self.current[number] = f"trial {number}: {name}, {memory} predicted"
        self._show()

    def rung(self, number: int, rung: Rung) -> None:
        """Show the mean score of the folds."""
        title = self.current.get(number, f"trial {number}").partition(", epoch ")[0]
        self.current[number] = f"{title}, epoch {rung.epoch:g}: mean {rung.mean:.4f}"
        self._show()

    def finished(self, record: TrialRecord) -> None:
        """Add the trial to the table; refused proposals are only counted."""
        self.clock.finish(record)
        self.current.pop(record.number, None)
        if record.state == INFEASIBLE:
            self.refused += 1
        elif record.state != INTERRUPTED:
            self.ended.append(record)
        self._show()

    def html(self) -> str:
        """The present output."""
        best = max((one for one in self.ended if one.complete), key=lambda one: one.score or 0.0, default=None)
        now = [] if self.over else head(self.phase, self.clock, self.refused, best, "", self.defaults)
        rows = table(COLUMNS, (_cells(one, self.defaults) for one in self.ended)) if self.ended else ""
        return _lines(self.said) + rows + _lines([*now, *self.current.values()])

    def _show(self) -> None:
        """Write the output, or update it in place."""
        ipython = importlib.import_module("IPython.display")  # every notebook has it; not a dependency
        content = ipython.HTML(self.html())
        if self._handle is None:
            self._handle = ipython.display(content, display_id=True)
        else:
            self._handle.update(content)


def _lines(told: Iterable[str]) -> str:
    return "".join(f"<div>{escape(one)}</div>" for one in told)


def _cells(record: TrialRecord, defaults: Mapping[str, ParamValue]) -> tuple[str, ...]:
    state = WORDS[record.state] + (f": {record.reason}" if record.reason and not record.complete else "")
    return (
        str(record.number),
        short_name(record.params, record.name, defaults),
        state,
        "–" if record.score is None else f"{record.score:.4f}",
        "–" if record.trainable_params is None else f"{record.trainable_params:,}",
        format_bytes(record.measured_memory) if record.measured_memory else "–",
        f"{record.seconds:.0f}",
    )
