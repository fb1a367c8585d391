"""The status of a study, read from its store while another process runs it, or afterwards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from autopeft.common.exceptions import UserInputError
from autopeft.common.line_table import Column, LineTable, Row
from autopeft.common.units import counted, format_estimate
from autopeft.methods.search_space import readable
from autopeft.reporting import raced
from autopeft.reporting.progress import sparkline
from autopeft.reporting.short_name import short_name
from autopeft.study.archive import RUNNING, Archive, open_archive
from autopeft.study.phase import SEARCHING, STARTING, Phase, current
from autopeft.study.record import DEFAULTS, WORKERS
from autopeft.study.states import INFEASIBLE

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Running:
    """A running trial: its number, its candidate, its mean score at each rung so far, and its short name."""

    number: int
    candidate: str
    curve: tuple[float, ...]
    short: str = ""


@dataclass(frozen=True)
class Status:
    """The status of a study.

    Attributes:
        name: the study's name.
        state: "running", "interrupted", "stopped" or "finished".
        stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials";
            empty where it did not.
        trials: number that ended, of those `wanted`; refused proposals do not count.
        states: how many ended each way, with the refused ones.
        best: the name of the best complete candidate so far; None before there is one.
        score: its mean score.
        race: how sure the choice is, if a race made it; or how many fresh folds ran, if it goes on; "" without a race.
        rise: the score of each trial in turn, None where it did not complete.
        running: the trials that train.
        seconds_left: about how long the remaining trials will take, at most until the timeout; once they have ended,
            how long the present phase will take; None where that is unknown.
        phase: what a running study is doing, such as "refitting the winner"; "" where that is unknown.
        short: the best candidate's method, and what differs from its default.
        latest: whether `seconds_left` is the time until the timeout.
        workers: on what a running study trains, as a sentence; "" for a single process whose device PyTorch chose.
    """

    name: str
    state: str
    stopped: str
    trials: int
    wanted: int
    states: dict[str, int]
    best: str | None
    score: float | None
    race: str
    rise: tuple[float | None, ...]
    running: tuple[Running, ...]
    seconds_left: float | None
    phase: str = ""
    short: str = ""
    latest: bool = False
    workers: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The status for a script."""
        return asdict(self)


def status(output: Path) -> Status:
    """Read the status of the study in an output folder.

    Raises:
        UserInputError: no study has been started there.
    """
    phase = current(output)
    try:
        archive = open_archive(output)
    except UserInputError:
        if phase is None or phase.name != STARTING:
            raise
        return Status(output.name, RUNNING, "", 0, 0, {}, None, None, "", (), (), None, str(phase))
    trained, wanted = archive.ended, int(archive.given["search"]["trials"])
    best = archive.ranked[0] if archive.ranked else None
    states = [record.state for record in archive.records]
    running = _running(archive) if archive.state == RUNNING else ()
    left, latest = _seconds_left(archive, phase, len(running)) if archive.state == RUNNING else (None, False)
    defaults = archive.attrs.get(DEFAULTS, {})
    return Status(
        name=archive.name,
        state=archive.state,
        stopped=archive.stopped,
        trials=len(trained),
        wanted=wanted,
        states={state: states.count(state) for state in dict.fromkeys(states)},
        best=best.name if best else None,
        score=best.score if best else None,
        race=raced.status(archive),
        rise=tuple(record.score if record.complete else None for record in trained),
        running=running,
        seconds_left=left,
        phase=str(phase) if phase and archive.state == RUNNING else "",
        short=short_name(best.params, best.name, defaults) if best else "",
        latest=latest,
        workers=archive.attrs.get(WORKERS, "") if archive.state == RUNNING else "",
    )


def _seconds_left(archive: Archive, phase: Phase | None, running: int) -> tuple[float | None, bool]:
    """About how long until the search, or the phase after it, ends; and whether that is a limit."""
    found: list[tuple[float, bool]] = []
    if phase and phase.seconds_left is not None:
        found.append((phase.seconds_left, phase.latest))
    if archive.ended and (phase is None or phase.name == SEARCHING):
        to_come = max(0, int(archive.given["search"]["trials"]) - len(archive.ended))
        mean = sum(record.seconds for record in archive.ended) / len(archive.ended)
        found.append((mean * to_come / max(1, running), False))
    return min(found) if found else (None, False)


def show(found: Status) -> RenderableType:
    """The status for a person."""
    refused = found.states.get(INFEASIBLE, 0)
    what = found.phase if found.phase else found.state
    lines = [f"{found.name} is {what}" + f": {found.trials} of {counted(found.wanted, 'trial')}" * bool(found.wanted)]
    if found.stopped:
        lines = [f"{found.name} was {found.stopped}"]
    lines[0] += f", {counted(refused, 'proposal')} refused" * bool(refused)
    if found.seconds_left and round(found.seconds_left):
        lines[0] += f", {'at most' if found.latest else 'about'} {format_estimate(found.seconds_left)} left"
    if found.best:
        lines.append(f"best so far: {found.score:.4f} {found.short or found.best}  {sparkline(found.rise)}".rstrip())
    lines += [*filter(None, (found.race, found.workers))]
    columns = (Column("trial", number=True), Column("candidate", cut=True), Column("mean score at each rung"))
    rows = [
        Row((str(trial.number), trial.short or trial.candidate, " ".join(f"{score:.4f}" for score in trial.curve)))
        for trial in found.running
    ]
    return Group(*map(Text, lines), *[LineTable(columns, rows)] * bool(rows))


def _running(archive: Archive) -> tuple[Running, ...]:
    defaults = archive.attrs.get(DEFAULTS, {})
    return tuple(
        Running(
            number,
            _candidate(trial),
            tuple(score for _, score in sorted(trial.intermediate_values.items())),
            short_name(trial.params, _candidate(trial), defaults),
        )
        for number, trial in archive.trials.items()
        if trial.state.name == "RUNNING"
    )


def _candidate(trial: FrozenTrial) -> str:
    method = str(trial.params.get("method", ""))
    own = {key.removeprefix(f"{method}."): value for key, value in trial.params.items() if key != "method"}
    return readable(method, own)
