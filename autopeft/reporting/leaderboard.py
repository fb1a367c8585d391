"""The leaderboard: which method won, and why each other candidate lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from autopeft.budget.limits import extra_columns
from autopeft.common.line_table import Column, LineTable, Row
from autopeft.common.units import counted, format_bytes
from autopeft.reporting.short_name import short_name
from autopeft.reporting.tasks_view import task_cells, verdict
from autopeft.study.predictions import WINNER
from autopeft.study.record import TrialRecord, listed, ranked
from autopeft.study.states import COMPLETE, ENDS, FAIL, INFEASIBLE, PRUNED, STOPPED, WORDS
from autopeft.study.task_scores import scores_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.common.params import ParamValue
    from autopeft.study.record import TestScores
    from autopeft.study.task_scores import TaskScore

SHOWN_TRIALS, SHOWN_NOTES = 40, 5
BEST = "bold green"


def leaderboard(
    found: Sequence[TrialRecord], metric: str, defaults: Mapping[str, ParamValue] | None = None
) -> RenderableType:
    """Every trial that trained, one per line: complete ones by score, then pruned, stopped and failed ones.

    The score of a pruned or stopped trial is from an earlier epoch than that of a complete one, so it is shown apart,
    with a note. Notes on some trials follow below the table.

    Args:
        found: the trials.
        metric: its name.
        defaults: of every dimension (`CandidateSpace.defaults`): a candidate's name then says what differs from them.
    """
    trained = [record for record in listed(found) if record.state != INFEASIBLE]
    shown = trained[:SHOWN_TRIALS]
    extra, tasks = extra_columns(found), [*next((scores for one in found if (scores := scores_in(one.facts))), {})]
    columns = (
        Column("rank", 1, number=True), Column("trial", number=True), Column("score"),
        *(Column(name, number=True) for name in tasks), Column("expected", 2), Column("its texts", 2), Column("state"),
        Column("candidate", cut=True), Column("± folds", 5),
        Column("trained", 4, number=True), Column("saved", 6, number=True), Column("memory", 7, number=True),
        Column("seconds", 3, number=True), *(Column(limit.measure, 8, number=True) for limit in extra),
    )  # fmt: skip
    names = {record.number: short_name(record.params, record.name, defaults or {}) for record in found}
    rows = []
    for place, record in enumerate(shown, 1):
        cells = (
            str(place) if record.complete else "–",
            str(record.number),
            _score(record.score),
            *task_cells(record, tasks),
            _score(record.expected) if record.expected is not None else "",
            _score(record.written) if record.written is not None else "",
            _state(record),
            names[record.number],
            f"{(max(record.fold_scores) - min(record.fold_scores)) / 2:.4f}" if record.fold_scores else "",
            "–" if record.trainable_params is None else f"{record.trainable_params:,}",
            "–" if record.saved_bytes is None else format_bytes(record.saved_bytes),
            format_bytes(record.measured_memory) if record.measured_memory else "–",
            f"{record.seconds:.0f}",
            *(limit.cell(record) for limit in extra),
        )
        rows.append(Row(cells, "dim" if not record.complete else BEST if place == 1 else ""))
    told = [f"and {counted(len(trained) - len(shown), 'more trial')}"] * (len(trained) > len(shown))
    told += _notes(shown, [record for record in found if record.state == INFEASIBLE], names)
    return Group(LineTable(columns, rows, f"Trials, by mean {metric} over the folds"), *map(Text, told))


def by_method(found: Sequence[TrialRecord]) -> RenderableType:
    """One row per method: how its trials ended and its best score."""
    ends = [state for state in ENDS if state != STOPPED or STOPPED in {r.state for r in found}]
    best = {record.method: record for record in reversed(ranked([*found]))}
    rows = []
    for method in sorted({r.method for r in found}, key=lambda m: -((best[m].score or 0.0) if m in best else -1.0)):
        states = [record.state for record in found if record.method == method]
        score = _score(best[method].score) if method in best else "–"
        rows.append(Row((method, score, *(str(states.count(state)) for state in ends))))
    columns = (Column("method", cut=True), Column("best"), *(Column(WORDS[state], number=True) for state in ends))
    return LineTable(columns, rows, "Methods")


def test_table(name: str, test: TestScores, metric: str) -> RenderableType:
    """The held-out scores: the winner, by its name, beside models that need no search."""
    entries: list[tuple[str, float | None, str]] = [(f"winner: {name}", test.winner, WINNER)]
    entries += [(f"untuned default of {method}", score, method) for method, score in test.defaults.items()]
    entries += [(called, score, called) for called, score in test.references.items()]
    entries += [(test.baseline_name, test.baseline, "")]
    rows = [
        Row((_score(score), "* " * (key in test.notes) + what), BEST if key == WINNER else "")
        for what, score, key in entries
    ]
    notes = [f"* {what.partition(':')[0]}: {test.notes[key]}" for what, _, key in entries if key in test.notes]
    table = LineTable((Column(metric, number=True), Column("model", cut=True)), rows, "On the held-out rows")
    if test.tasks:
        notes += [verdict(test.tasks)]
        return Group(table, _of_tasks(test.tasks), *map(Text, notes))
    return Group(table, *map(Text, notes))


def _of_tasks(tasks: Mapping[str, TaskScore]) -> RenderableType:
    """Each task on its held-out rows: the winner, and the task's single-task default."""
    rows = [
        Row((name, task.metric, _score(task.score), _score(task.single), f"{task.score - task.single:+.4f}"))
        for name, task in tasks.items()
    ]
    columns = (Column("task"), Column("metric", cut=True), Column("winner", number=True),
               Column("alone", number=True), Column("gain", number=True))  # fmt: skip
    return LineTable(columns, rows, "Each task on its held-out rows")


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.4f}"


def _state(record: TrialRecord) -> str:
    """How a trial ended, after which epoch if it was not the last, and a mark if a note says more."""
    state = WORDS[record.state]
    if record.state in (PRUNED, STOPPED):
        return f"{state} {record.epochs_trained:g}/{record.epochs}"
    return state + " *" * bool(_note(record))


def _note(record: TrialRecord) -> str:
    if record.passed_over:
        return f"could not be the winner: {record.passed_over}"
    by = "the machine failed: " if record.machine else ""
    return by + record.reason if record.state in (COMPLETE, FAIL) else ""


def _notes(shown: Sequence[TrialRecord], refused: Sequence[TrialRecord], names: Mapping[int, str]) -> list[str]:
    """The notes on trials, each one once, and a note on the proposals that were refused."""
    numbers: dict[str, list[int]] = {}
    for record in shown:
        if note := _note(record):
            numbers.setdefault(note, []).append(record.number)
    found = [
        f"* trial{'s' * (len(some) > 1)} {', '.join(map(str, sorted(some)))}: {note}" for note, some in numbers.items()
    ]
    told = found[:SHOWN_NOTES] + [f"* and {counted(len(found) - SHOWN_NOTES, 'more note')}; MLflow has them all"] * (
        len(found) > SHOWN_NOTES
    )
    if early := next((record for record in shown if record.state in (PRUNED, STOPPED)), None):
        at = f"{early.epochs_trained:g}/{early.epochs}"
        told.append(f"{at}: its score is that of epoch {early.epochs_trained:g} of {early.epochs}, so it has no rank.")
    if refused:
        first, were = refused[0], "was" if len(refused) == 1 else "were"
        told.append(
            f"{counted(len(refused), 'proposal')} {were} refused and not trained, such as trial {first.number}, "
            f"{names[first.number]}: {first.reason}"
        )
    return told
