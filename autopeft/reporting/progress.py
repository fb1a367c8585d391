"""Shows a running study: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from rich.live import Live

from autopeft.budget.limits import MEMORY, PARAMS, extra_needs
from autopeft.common.exceptions import StreamError
from autopeft.common.units import format_bytes, format_estimate
from autopeft.reporting.live_view import Current, head, lay_out, row
from autopeft.reporting.short_name import short_name
from autopeft.study.states import COUNTED, INFEASIBLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from rich.console import Console, RenderableType

    from autopeft.budget.limits import Budget, Limit
    from autopeft.budget.usage import Usage
    from autopeft.common.params import ParamValue
    from autopeft.methods.candidate import Candidate
    from autopeft.study.phase import Phase
    from autopeft.study.record import TrialRecord
    from autopeft.training.rungs import Rung

REFRESH = 0.25
"""Seconds between two pictures of the live view."""

MOST_ROWS = 200
"""Number of trials kept to be shown; more than a screen has lines."""

SHOWN_BARS = 40
BARS = "▁▂▃▄▅▆▇█"


class Progress(Protocol):
    """Its methods are called as things happen, with one trial or several at a time. Used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """Show a sentence."""

    def begun(self, wanted: int, defaults: Mapping[str, ParamValue], deadline: float | None) -> None:
        """The search begins: for `wanted` trials, and until `deadline` at the latest, on the monotonic clock."""

    def entered(self, phase: Phase) -> None:
        """The study has entered another phase."""

    def started(self, number: int, candidate: Candidate, usage: Usage, budget: Budget, done: int, wanted: int) -> None:
        """A trial was admitted and starts; `done` of `wanted` have ended or started before it."""

    def rung(self, number: int, rung: Rung) -> None:
        """All folds of the trial reached a rung."""

    def finished(self, record: TrialRecord) -> None:
        """A trial ended, or was refused."""


class PlainProgress:
    """One line per event, for log files."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.clock = Clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Print the sentence."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begun(self, wanted: int, defaults: Mapping[str, ParamValue], deadline: float | None) -> None:
        """Keep the deadline."""
        self.clock.begin(wanted, deadline)

    def entered(self, phase: Phase) -> None:
        """Print nothing: a sentence says it already."""

    def started(self, number: int, candidate: Candidate, usage: Usage, budget: Budget, done: int, wanted: int) -> None:
        """Print where the study stands and what starts."""
        self.clock.start(number, done, wanted)
        self.say(
            f"[{done + 1}/{wanted}] trial {number}: {candidate} ({_needs(candidate, usage, budget)}){self.clock.left()}"
        )

    def rung(self, number: int, rung: Rung) -> None:
        """Print the folds' scores."""
        folds = " ".join(f"{score:.4f}" for score in rung.scores)
        which = f"trial {number}, " if len(self.clock.running) > 1 else ""
        self.say(f"    {which}epoch {rung.epoch:g}: mean {rung.mean:.4f}  folds {folds}")

    def finished(self, record: TrialRecord) -> None:
        """Print how the trial ended."""
        self.clock.finish(record)
        score = f" {record.score:.4f}" if record.score is not None else ""
        reason = f": {record.reason}" if record.reason else ""
        self.say(f"    trial {record.number} {record.state}{score} in {record.seconds:.1f} s{reason}")


class LiveProgress:
    """Shows what the study is doing, the time left, the best and the running trials; below, the last ones that fit.

    It draws in a thread of its own. Rich's thread may draw while a sentence is being printed, and then a line of the
    old table stays for good.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.clock = Clock()
        self.rows: deque[TrialRecord] = deque(maxlen=MOST_ROWS)
        self.refused = 0
        self.best: TrialRecord | None = None
        self.scores: list[float | None] = []
        self.current: dict[int, Current] = {}
        self.defaults: Mapping[str, ParamValue] = {}
        self.phase: Phase | None = None
        self.live = Live(console=console, get_renderable=self._render, auto_refresh=False, transient=True)
        self._turn = threading.RLock()  # held by whoever draws, or changes what is drawn
        self._ended = threading.Event()
        self._drawing = threading.Thread(target=self._keep_drawing, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self.live.start()
        self._drawing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._drawing.join()
        with suppress(OSError, StreamError):  # a closed terminal: report what ended the study, not that
            self.live.stop()

    def say(self, text: str) -> None:
        """Print the sentence above the table."""
        with self._turn:
            self.console.print(text, highlight=False, markup=False)

    def begun(self, wanted: int, defaults: Mapping[str, ParamValue], deadline: float | None) -> None:
        """Keep the deadline, and the defaults, as the names of trials say only what differs."""
        self.clock.begin(wanted, deadline)
        self.defaults = defaults

    def entered(self, phase: Phase) -> None:
        """Show it in the first line, at once: a phase may be shorter than the time between two refreshes."""
        with self._turn:
            self.phase = phase
            self.live.refresh()

    def started(self, number: int, candidate: Candidate, usage: Usage, budget: Budget, done: int, wanted: int) -> None:
        """Show the trial above the table while it runs."""
        name = short_name(candidate.flat, str(candidate), self.defaults)
        with self._turn:
            self.clock.start(number, done, wanted)
            self.current[number] = Current(name, _needs(candidate, usage, budget))

    def rung(self, number: int, rung: Rung) -> None:
        """Show the folds' scores."""
        folds = ", folds " + " ".join(f"{score:.4f}" for score in rung.scores)
        reached = f"epoch {rung.epoch:g}: mean {rung.mean:.4f}"
        with self._turn:
            self.current[number] = self.current[number]._replace(reached=reached, folds=folds)

    def finished(self, record: TrialRecord) -> None:
        """Add the trial to the table; refused proposals are only counted."""
        with self._turn:
            self.clock.finish(record)
            self.current.pop(record.number, None)
            if record.state == INFEASIBLE:
                self.refused += 1
                return
            self.rows.append(record)
            self.scores.append(record.score if record.complete else None)
            better = self.best is None or (record.score or 0.0) > (self.best.score or 0.0)
            if record.complete and better:
                self.best = record

    def _keep_drawing(self) -> None:
        with suppress(OSError, StreamError):  # a closed terminal
            while not self._ended.wait(REFRESH):
                with self._turn:
                    self.live.refresh()

    def _render(self) -> RenderableType:
        told = head(self.phase, self.clock, self.refused, self.best, sparkline(self.scores), self.defaults)
        rows = (row(record, self.defaults) for record in reversed(self.rows))
        return lay_out(told, self.current, rows, self.console.size.height)


def sparkline(scores: Sequence[float | None]) -> str:
    """How the best score rose from trial to trial, a bar each; None is a trial that did not complete."""
    best, rise = None, list[float]()
    for score in scores:
        best = best if score is None else score if best is None else max(best, score)
        if best is not None:
            rise.append(best)
    if len(set(rise)) < 2:
        return ""
    low, high = rise[0], rise[-1]
    return "".join(BARS[round((score - low) / (high - low) * (len(BARS) - 1))] for score in rise[-SHOWN_BARS:])


class Clock:
    """Time left, from how long trials have taken so far, and how many ran at a time.

    Attributes:
        running: numbers of the trials that run.
        ended: number of trials that ended, also in earlier starts, as far as known.
    """

    def __init__(self) -> None:
        self.took: list[float] = []
        self.running: set[int] = set()
        self.side_by_side = 1
        self.done = self.wanted = self.ended = 0
        self.since = time.monotonic()
        self.deadline: float | None = None

    def begin(self, wanted: int, deadline: float | None) -> None:
        """The search begins; it ends at the deadline at the latest."""
        self.wanted, self.deadline = wanted, deadline

    def start(self, number: int, done: int, wanted: int) -> None:
        """A trial starts."""
        self.done, self.wanted, self.since = done, wanted, time.monotonic()
        self.ended = done - len(self.running)
        self.running.add(number)
        self.side_by_side = max(self.side_by_side, len(self.running))

    def finish(self, record: TrialRecord) -> None:
        """A trial ended."""
        self.running.discard(record.number)
        if record.state in COUNTED:
            self.ended += 1
            self.took += [record.seconds] * bool(record.seconds)

    def left(self) -> str:
        """About how long the remaining trials will take, at most until the timeout; empty before one has ended."""
        most = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        if self.took:
            mean = sum(self.took) / len(self.took) / self.side_by_side
            seconds = max(0.0, mean * (self.wanted - self.done) - (time.monotonic() - self.since))
            if most is None or seconds <= most:
                return f" · about {format_estimate(seconds)} left"
        return "" if most is None else f" · at most {format_estimate(most)} left"


def make_progress(console: Console) -> Progress:
    """Live in a notebook and on a terminal; plain lines elsewhere."""
    if console.is_jupyter and not console.quiet:
        from autopeft.reporting.notebook_progress import NotebookProgress

        return NotebookProgress()
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def _needs(candidate: Candidate, usage: Usage, budget: Budget) -> str:
    """A trial's params and memory, and what it uses of other limits, each with its share of the budget."""
    memory = format_bytes(usage.memory.peak)
    if usage.execution.checkpointing or usage.execution.micro_batch < candidate.hyper.batch_size:
        memory += f" in {usage.execution}"
    told = {PARAMS: f"{usage.trainable_params:,} params", MEMORY: memory}
    told |= {limit: f"{limit.measure} {limit.write(need)}" for limit, need in extra_needs(usage).items()}
    return ", ".join(text + _share(limit, usage, budget) for limit, text in told.items())


def _share(limit: Limit, usage: Usage, budget: Budget) -> str:
    value = budget.values.get(limit.name)
    return f" = {limit.needed(usage) / value:.0%} of budget" if value else ""
