"""The tasks of a study of several: their scores, beside those of each task alone, in tables and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.reporting.short_name import short_name
from autopeft.study.record import listed
from autopeft.study.report_section import ReportSection, ReportTable
from autopeft.study.task_scores import SINGLES, alone_key, lead, scores_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.study.archive import Archive
    from autopeft.study.record import TrialRecord
    from autopeft.study.task_scores import TaskScore

MOST = 20
"""Most trials in the table."""

MEANING = (
    "The score of this study is the gain: the mean over the tasks of a task's score less that of its single-task "
    "default, each by the task's own metric."
)


def held_out(tasks: Mapping[str, TaskScore], notes: Mapping[str, str]) -> ReportSection:
    """Each task on its held-out rows and in cross-validation, and which tasks are worse together than alone.

    Args:
        tasks: their scores.
        notes: on the training of models; those on tasks alone are told.
    """
    rows = [
        (
            name, task.kind, task.metric, _score(task.score), f"{_score(task.single)} ({task.single_name})",
            f"{task.score - task.single:+.4f}", f"{_score(task.baseline)} ({task.baseline_name})",
            f"{task.lead.mean:+.4f} ± {task.lead.error:.4f}",
        )
        for name, task in tasks.items()
    ]  # fmt: skip
    columns = ("task", "kind", "metric", "winner", "alone", "gain", "baseline", "gain in cross-validation")
    of_tasks = {key: notes[key] for name in tasks if (key := alone_key(name)) in notes}
    return ReportSection(
        "The tasks on their held-out rows",
        " ".join([MEANING, verdict(tasks), *(f"{key}: {note}." for key, note in of_tasks.items())]),
        table=ReportTable(columns, tuple(rows), (3, 4, 5, 6, 7)),
    )


def verdict(tasks: Mapping[str, TaskScore]) -> str:
    """A sentence on negative transfer: on the tasks that are worse together with the others than alone."""
    worse = [
        f"{name} ({task.lead.mean:+.4f} ± {task.lead.error:.4f})" for name, task in tasks.items() if task.lead.negative
    ]
    if not worse:
        return "No task is worse than alone by more than one standard error of the difference over the folds."
    return (
        "Negative transfer: by more than one standard error of the difference over the folds, worse than alone is "
        f"{', '.join(worse)}."
    )


def sections(archive: Archive) -> list[ReportSection]:
    """Each task's score in cross-validation, for the best trials and for each task alone; nothing for one task."""
    singles = archive.attrs.get(SINGLES, {})
    trials = [record for record in listed(archive.trained) if scores_in(record.facts)][:MOST]
    if not singles or not trials:
        return []
    alone = {name: tuple(content["fold_scores"]) for name, content in singles.items()}
    names = {one.number: short_name(one.params, one.name, archive.attrs.get("defaults", {})) for one in trials}
    first = ("–", "each task alone", *(_score(sum(folds) / len(folds)) for folds in alone.values()))
    table = ReportTable(
        ("trial", "candidate", *alone),
        (first, *((str(one.number), names[one.number], *_cells(one, alone)) for one in trials)),
        (0, *range(2, 2 + len(alone))),
    )
    told = "Mean over the folds. A task that is worse than alone by more than one standard error is marked *."
    return [ReportSection("Each task in cross-validation", told, table=table)]


def task_cells(record: TrialRecord, tasks: Sequence[str]) -> list[str]:
    """The mean score of each task, for a leaderboard; "–" where a trial was stopped before its end."""
    found = scores_in(record.facts)
    return [_score(sum(found[name]) / len(found[name])) if name in found else "–" for name in tasks]


def _cells(record: TrialRecord, alone: Mapping[str, tuple[float, ...]]) -> list[str]:
    found = scores_in(record.facts)
    return [
        cell + " *" * lead(found[name], alone[name]).negative
        for name, cell in zip(alone, task_cells(record, [*alone]), strict=True)
    ]


def _score(score: float) -> str:
    return f"{score:.4f}"
