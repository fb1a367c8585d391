"""The terminal's view of a running study: first what matters, then as many of the last trials as fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from autopeft.common.line_table import Column, LineTable, Row
from autopeft.common.units import counted, format_bytes, format_estimate
from autopeft.reporting.short_name import short_name
from autopeft.study.phase import SEARCHING, STARTING
from autopeft.study.states import COMPLETE, FAIL, INTERRUPTED, PRUNED, STOPPED, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from autopeft.common.params import ParamValue
    from autopeft.reporting.progress import Clock
    from autopeft.study.phase import Phase
    from autopeft.study.record import TrialRecord

STYLES = {COMPLETE: "green", PRUNED: "yellow", STOPPED: "yellow", FAIL: "red", INTERRUPTED: "yellow"}
COLUMNS = (
    Column("trial", number=True), Column("score"), Column("state"), Column("candidate", cut=True),
    Column("trained", 3, number=True), Column("memory", 4, number=True), Column("seconds", 2, number=True),
    Column("folds", 5),
)  # fmt: skip

FEWEST_ROWS = 4
"""There must be room for this many ended trials before running ones get more than one line each."""


class Current(NamedTuple):
    """A running trial: its candidate, what it needs of the budget, and the last rung that it reached."""

    name: str
    needs: str
    reached: str = "first rung"
    folds: str = ""

    def lines(self, number: int, *, brief: bool) -> list[str]:
        """The trial in words."""
        if brief:
            return [f"trial {number}: {self.reached}, {self.name}"]
        return [f"trial {number}: {self.name}", f"  {self.reached}{self.folds}", f"  {self.needs}"]


def lay_out(head: Sequence[str], current: Mapping[int, Current], rows: Iterable[Row], height: int) -> RenderableType:
    """The head, the running trials, and the ended trials, the last one first, in `height` lines."""
    most = height - 1 - len(head)  # a terminal's last line stays free for the cursor
    brief = most - 3 * len(current) - 1 < FEWEST_ROWS
    lines = [line for number, one in current.items() for line in one.lines(number, brief=brief)]
    if len(lines) > most:
        lines = [*lines[: most - 1], f"and {counted(len(lines) - most + 1, 'more trial')}"]
    shown = [*rows][: max(0, most - len(lines) - 1)]
    told = [Text(line, "bold", no_wrap=True, overflow="ellipsis") for line in (*head, *lines)]
    return Group(*told, *[LineTable(COLUMNS, shown)] * bool(shown))


def head(
    phase: Phase | None,
    clock: Clock,
    refused: int,
    best: TrialRecord | None,
    rise: str,
    defaults: Mapping[str, ParamValue],
) -> list[str]:
    """What the study is doing, with the time left, and the best trial so far."""
    if phase and phase.name == SEARCHING:
        told = [f"searching: {clock.ended} of {counted(clock.wanted, 'trial')}", clock.left().removeprefix(" · ")]
        told += [f"{counted(refused, 'proposal')} refused"] * bool(refused)
    else:
        told = [str(phase or STARTING)]
        if phase and round(left := phase.seconds_left or 0.0):  # not if it takes longer than expected
            told.append(f"{'at most' if phase.latest else 'about'} {format_estimate(left)} left")
    first = " · ".join(filter(None, told))
    if best is None:
        return [first]
    named = short_name(best.params, best.name, defaults)
    return [first, f"best so far: {best.score:.4f}, trial {best.number} {named}  {rise}".rstrip()]


def row(record: TrialRecord, defaults: Mapping[str, ParamValue]) -> Row:
    """The row of a trial that ended."""
    return Row(
        (
            str(record.number),
            "–" if record.score is None else f"{record.score:.4f}",
            WORDS[record.state],
            short_name(record.params, record.name, defaults),
            "–" if record.trainable_params is None else f"{record.trainable_params:,}",
            format_bytes(record.measured_memory) if record.measured_memory else "–",
            f"{record.seconds:.0f}",
            " ".join(f"{score:.3f}" for score in record.fold_scores),
        ),
        STYLES.get(record.state, ""),
    )
