"""Where a study stands, read from its store while another process runs it, or after that ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autopeft.methods.search_space import readable
from autopeft.reporting import raced
from autopeft.reporting.progress import sparkline
from autopeft.study.archive import RUNNING, Archive, open_archive
from autopeft.study.states import INFEASIBLE

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Running:
    """A trial that trains: its number, its candidate, its mean score at each rung so far."""

    number: int
    candidate: str
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Status:
    """Where a study stands.

    Attributes:
        name: the study's.
        state: "running", "interrupted", "stopped" or "finished".
        stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials";
            empty where it did not.
        trials: that ended, of those `wanted`; refused proposals do not count.
        states: how many ended each way, refused ones among them.
        best: the name of the best complete candidate so far; None before there is one.
        score: its mean score.
        race: how sure it is, where a race chose it; or how many fresh folds ran in one that goes on; "" without one.
        rise: the score of each trial in turn, None where it did not complete.
        running: the trials that train.
        seconds_left: about how long the trials to come will take; None where nobody can tell.
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

    def to_dict(self) -> dict[str, Any]:
        """For a script."""
        return asdict(self)


def status(output: Path) -> Status:
    """Read it.

    Raises:
        UserInputError: no study has been started there.
    """
    archive = open_archive(output)
    trained, wanted = archive.ended, int(archive.given["search"]["trials"])
    best = archive.ranked[0] if archive.ranked else None
    states = [record.state for record in archive.records]
    running = _running(archive) if archive.state == RUNNING else ()
    left = None
    if archive.state == RUNNING and trained:
        mean = sum(record.seconds for record in trained) / len(trained)
        left = mean * max(0, wanted - len(trained)) / max(1, len(running))
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
    )


def show(found: Status) -> RenderableType:
    """The same for a person."""
    refused = found.states.get(INFEASIBLE, 0)
    lines = [f"{found.name} is {found.state}: {found.trials} of {found.wanted} trials"]
    if found.stopped:
        lines = [f"{found.name} was {found.stopped}"]
    lines[0] += f", {refused} proposals refused" * bool(refused)
    if found.seconds_left is not None:
        minutes, seconds = divmod(round(found.seconds_left), 60)
        lines[0] += f", about {minutes} min {seconds:02d} s left"
    if found.best:
        lines.append(f"best so far: {found.score:.4f} {found.best}  {sparkline(found.rise)}".rstrip())
    lines += [found.race] * bool(found.race)
    table = Table("trial", "candidate", "mean score at each rung", box=None, pad_edge=False)
    for trial in found.running:
        table.add_row(str(trial.number), trial.candidate, " ".join(f"{score:.4f}" for score in trial.curve))
    return Group(*map(Text, lines), *[table] * bool(found.running))


def _running(archive: Archive) -> tuple[Running, ...]:
    return tuple(
        Running(number, _candidate(trial), tuple(score for _, score in sorted(trial.intermediate_values.items())))
        for number, trial in archive.trials.items()
        if trial.state.name == "RUNNING"
    )


def _candidate(trial: FrozenTrial) -> str:
    method = str(trial.params.get("method", ""))
    own = {key.removeprefix(f"{method}."): value for key, value in trial.params.items() if key != "method"}
    return readable(method, own)
