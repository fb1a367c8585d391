"""The leaderboard: which method won, and why each other candidate lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autopeft.budget.limits import extra_columns
from autopeft.common.units import format_bytes
from autopeft.study.predictions import WINNER
from autopeft.study.record import TrialRecord, ranked
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, PRUNED, STOPPED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.budget.limits import Limit
    from autopeft.study.record import TestScores

SHOWN_REFUSED = 3
ORDER = (PRUNED, STOPPED, FAIL)
"""Of the trials that trained and are not complete."""


def leaderboard(found: Sequence[TrialRecord], metric: str) -> Table:
    """Every trial that trained: complete ones by score, then pruned, stopped, failed; a few of those refused.

    The score of a trial that was pruned or stopped is of an earlier epoch than a complete one's, so it stands apart and
    says so.
    """
    table = Table(title="Trials", title_justify="left", caption_justify="left")
    extra, wrote = extra_columns(found), any(record.written is not None for record in found)
    raced = any(record.place is not None for record in found)
    for column, justify in (
        ("rank", "right"), ("trial", "right"), ("candidate", "left"), (f"mean {metric}", "right"),
        ("± folds", "right"), ("state", "left"), ("trained", "right"), ("saved", "right"), ("memory", "right"),
        ("seconds", "right"), *((limit.measure, "right") for limit in extra), *[("its texts", "right")] * wrote,
        *[("expected", "right")] * raced,
    ):  # fmt: skip
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    complete = ranked(list(found))
    others = [record for record in found if not record.complete and record.state != INFEASIBLE]
    refused = [record for record in found if record.state == INFEASIBLE]
    for rank, record in enumerate(complete, 1):
        table.add_row(str(rank), *_cells(record, extra, wrote, raced), style="bold green" if rank == 1 else None)
    for record in sorted(others, key=lambda record: (ORDER.index(record.state), -(record.score or 0.0))):
        table.add_row("–", *_cells(record, extra, wrote, raced), style="dim")
    for record in refused[:SHOWN_REFUSED]:
        table.add_row("–", *_cells(record, extra, wrote, raced), style="dim")
    if refused:
        table.caption = f"{len(refused)} proposals were refused and not trained."
    return table


def by_method(found: Sequence[TrialRecord]) -> Table:
    """One row per method: how its trials ended and its best score."""
    ends = {COMPLETE: "complete", PRUNED: "pruned", STOPPED: "stopped", FAIL: "failed", INFEASIBLE: "refused"}
    if not any(record.state == STOPPED for record in found):
        del ends[STOPPED]
    table = Table("method", "best", *ends.values(), title="Methods", title_justify="left")
    best = {record.method: record for record in reversed(ranked(list(found)))}
    for method in sorted({r.method for r in found}, key=lambda m: -((best[m].score or 0.0) if m in best else -1.0)):
        states = [record.state for record in found if record.method == method]
        table.add_row(
            method,
            f"{best[method].score:.4f}" if method in best else "–",
            *(str(states.count(state)) for state in ends),
        )
    return table


def test_table(best: TrialRecord, test: TestScores, metric: str) -> Table:
    """The held-out scores: the winner beside what needs no search."""
    table = Table("on the held-out rows", metric, "", title="Test", title_justify="left")
    table.add_row(f"winner: {best.name}", f"{test.winner:.4f}", test.notes.get(WINNER, ""), style="bold green")
    for method, score in test.defaults.items():
        table.add_row(
            f"untuned default of {method}", "–" if score is None else f"{score:.4f}", test.notes.get(method, "")
        )
    for name, score in test.references.items():
        table.add_row(name, "–" if score is None else f"{score:.4f}", test.notes.get(name, ""))
    table.add_row(test.baseline_name, f"{test.baseline:.4f}", "")
    return table


def summary(
    found: Sequence[TrialRecord],
    best: TrialRecord,
    test: TestScores,
    metric: str,
    winner_folder: str,
    stopped: str = "",
    race: str = "",
) -> RenderableType:
    """All of it, for the end of a run.

    `stopped` says how the search ended before its last trial, if it did, and `race` how sure the winner is, after one.
    """
    saved = Text(f"Winner saved to {winner_folder}", no_wrap=True)
    short = [Text(f"The search was {stopped}: this is the best of those.", "yellow")] if stopped else []
    sure = [Text(race)] if race else []
    return Group(leaderboard(found, metric), by_method(found), test_table(best, test, metric), *sure, *short, saved)


def _cells(record: TrialRecord, extra: Sequence[Limit], wrote: bool, raced: bool) -> tuple[str, ...]:
    """A trial's; `wrote` where there is a column for what texts score, `raced` where for what is expected of it."""
    spread = ""
    if record.fold_scores:
        spread = f"{(max(record.fold_scores) - min(record.fold_scores)) / 2:.4f}"
    state = record.state.lower() + " by the machine" * record.machine
    if record.state in (PRUNED, STOPPED) or (record.state != COMPLETE and record.curve and not record.machine):
        state += f" at epoch {record.epochs_trained:g} of {record.epochs}"
    elif record.reason:
        state += f": {record.reason}"
    if record.passed_over:
        state += ", but could not be the winner"
    return (
        str(record.number),
        record.name,
        "–" if record.score is None else f"{record.score:.4f}",
        spread,
        state,
        "–" if record.trainable_params is None else f"{record.trainable_params:,}",
        "–" if record.saved_params is None else f"{record.saved_params:,}",
        format_bytes(record.measured_memory) if record.measured_memory else "–",
        f"{record.seconds:.0f}",
        *(limit.cell(record) for limit in extra),
        *["–" if record.written is None else f"{record.written:.4f}"] * wrote,
        *["–" if record.expected is None else f"{record.expected:.4f}"] * raced,
    )
