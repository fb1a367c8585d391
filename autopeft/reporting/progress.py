"""What a person sees while a study runs: a live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autopeft.budget.limits import MEMORY, PARAMS, extra_needs
from autopeft.common.exceptions import StreamError
from autopeft.common.units import format_bytes
from autopeft.study.states import COMPLETE, COUNTED, FAIL, INFEASIBLE, INTERRUPTED, PRUNED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from autopeft.budget.limits import Budget, Limit
    from autopeft.budget.usage import Usage
    from autopeft.methods.candidate import Candidate
    from autopeft.study.record import TrialRecord
    from autopeft.training.rungs import Rung

SHOWN_TRIALS = 12
SHOWN_BARS = 40
BARS = "▁▂▃▄▅▆▇█"
STYLES = {COMPLETE: "green", PRUNED: "yellow", STOPPED: "yellow", INFEASIBLE: "dim", FAIL: "red", INTERRUPTED: "yellow"}


class Progress(Protocol):
    """Told what happens as it happens, to one trial or to several at a time. Used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """Something worth a sentence."""

    def started(self, number: int, candidate: Candidate, usage: Usage, budget: Budget, done: int, wanted: int) -> None:
        """A trial was admitted and starts; `done` of `wanted` have ended or started before it."""

    def rung(self, number: int, rung: Rung) -> None:
        """All folds of the trial reached a rung."""

    def finished(self, record: TrialRecord) -> None:
        """A trial ended, or was refused."""


class PlainProgress:
    """One line per event: what a log file wants."""

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
    """The last trials in a table that grows in place, the best so far, and the time left."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.clock = Clock()
        self.rows: deque[TrialRecord] = deque(maxlen=SHOWN_TRIALS)
        self.refused = 0
        self.best: TrialRecord | None = None
        self.scores: list[float | None] = []
        self.current: dict[int, tuple[str, str]] = {}
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError, StreamError):  # a terminal that was closed; what ended the study is to be told, not that
            self.live.stop()

    def say(self, text: str) -> None:
        """Print the sentence above the table."""
        self.console.print(text, highlight=False, markup=False)

    def started(self, number: int, candidate: Candidate, usage: Usage, budget: Budget, done: int, wanted: int) -> None:
        """Show the trial below the table while it runs."""
        self.clock.start(number, done, wanted)
        title = f"[{done + 1}/{wanted}] trial {number}: {candidate}\n{_needs(candidate, usage, budget)}"
        self.current[number] = title, "first rung"

    def rung(self, number: int, rung: Rung) -> None:
        """Show the folds' scores."""
        folds = " ".join(f"{score:.4f}" for score in rung.scores)
        self.current[number] = self.current[number][0], f"epoch {rung.epoch:g}: mean {rung.mean:.4f}, folds {folds}"

    def finished(self, record: TrialRecord) -> None:
        """Add the trial to the table; refused proposals are only counted."""
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

    def _render(self) -> RenderableType:
        table = Table("trial", "state", "score", "folds", "params", "memory", "seconds", box=None, pad_edge=False)
        for record in self.rows:
            table.add_row(
                f"{record.number} {record.name}",
                Text(record.state.lower(), STYLES.get(record.state, "")),
                "–" if record.score is None else f"{record.score:.4f}",
                " ".join(f"{score:.3f}" for score in record.fold_scores),
                "–" if record.trainable_params is None else f"{record.trainable_params:,}",
                format_bytes(record.measured_memory) if record.measured_memory else "–",
                f"{record.seconds:.0f}",
            )
        best = f"best so far: {self.best.score:.4f}, trial {self.best.number} {self.best.name}" if self.best else ""
        best += f"  {sparkline(self.scores)}"
        refused = f"{self.refused} proposals refused" if self.refused else ""
        running = [line for lines in self.current.values() for line in lines]
        left = self.clock.left().removeprefix(" · ")
        footer = "\n".join(filter(None, (*running, left, best.strip(), refused)))
        return Group(table, Text(footer, style="bold"))


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
    """

    def __init__(self) -> None:
        self.took: list[float] = []
        self.running: set[int] = set()
        self.side_by_side = 1
        self.done = self.wanted = 0
        self.since = time.monotonic()

    def start(self, number: int, done: int, wanted: int) -> None:
        """A trial starts."""
        self.done, self.wanted, self.since = done, wanted, time.monotonic()
        self.running.add(number)
        self.side_by_side = max(self.side_by_side, len(self.running))

    def finish(self, record: TrialRecord) -> None:
        """A trial ended."""
        self.running.discard(record.number)
        if record.seconds and record.state in COUNTED:
            self.took.append(record.seconds)

    def left(self) -> str:
        """About how long the trials to come will take; empty before the first has ended."""
        if not self.took:
            return ""
        mean = sum(self.took) / len(self.took) / self.side_by_side
        seconds = max(0.0, mean * (self.wanted - self.done) - (time.monotonic() - self.since))
        minutes, seconds = divmod(round(seconds), 60)
        return f" · about {minutes} min {seconds:02d} s left"


def make_progress(console: Console) -> Progress:
    """Live in a notebook and on a terminal; plain lines elsewhere."""
    if console.is_jupyter and not console.quiet:
        from autopeft.reporting.notebook_progress import NotebookProgress

        return NotebookProgress()
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


def _needs(candidate: Candidate, usage: Usage, budget: Budget) -> str:
    """What a trial uses of what is limited, and its share of the budget; params and memory in any case."""
    memory = format_bytes(usage.memory.peak)
    if usage.execution.checkpointing or usage.execution.micro_batch < candidate.hyper.batch_size:
        memory += f" in {usage.execution}"
    told = {PARAMS: f"{usage.trainable_params:,} params", MEMORY: memory}
    told |= {limit: f"{limit.measure} {limit.write(need)}" for limit, need in extra_needs(usage).items()}
    return ", ".join(text + _share(limit, usage, budget) for limit, text in told.items())


def _share(limit: Limit, usage: Usage, budget: Budget) -> str:
    value = budget.values.get(limit.name)
    return f" = {limit.needed(usage) / value:.0%} of budget" if value else ""
