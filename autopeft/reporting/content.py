"""The whole report, as plain data that a page, a terminal or a script can show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from autopeft.common.truncation import Truncation
from autopeft.common.units import counted
from autopeft.reporting import choice, raced, tasks_view
from autopeft.reporting.comparison import Comparison, Front, Simplest, compare, fronts, simplest
from autopeft.reporting.findings import findings
from autopeft.reporting.held_out_rows import TestRows, held_out_rows
from autopeft.reporting.importance import Importance, importances
from autopeft.reporting.spending import BudgetUse, Cost, budget_use, cost
from autopeft.study import report_section
from autopeft.study.archive import FINISHED, RUNNING, open_archive
from autopeft.study.folder import SECTIONS
from autopeft.study.record import listed, plain
from autopeft.study.report_section import ReportSection
from autopeft.study.states import FAIL, INFEASIBLE, PRUNED, STOPPED

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.study.archive import Archive
    from autopeft.study.record import TrialRecord


@dataclass(frozen=True)
class Curve:
    """The mean score of a trial at each of its rungs, with the number of epochs there."""

    number: int
    method: str
    state: str
    epochs: list[float]
    scores: list[float]


@dataclass(frozen=True)
class Report:
    """Everything that a study found.

    Attributes:
        state: "finished", "stopped", "running" or "interrupted"; `headline` says so too where it is not finished.
        stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials";
            empty where it did not.
        main: the findings in at most three sentences (`findings`).
        headline: the findings in detail, a sentence or two each, the most important first.
        winner: the best complete trial so far; None where none is complete.
        trials: those that were trained: complete ones by score, then pruned, stopped and failed.
        defaults: numbers of the trials of untuned defaults.
        test: the scores on the held-out rows; None until a winner was scored there.
        sections: the task's own sections on these rows.
    """

    study: str
    model: str
    task: str
    metric: str
    folds: int
    seed: int
    state: str
    stopped: str
    main: list[str]
    headline: list[str]
    winner: TrialRecord | None
    trials: list[TrialRecord]
    defaults: list[int]
    comparisons: list[Comparison]
    simplest: Simplest | None
    fronts: list[Front]
    importances: list[Importance]
    curves: list[Curve]
    budget: BudgetUse
    cost: Cost
    test: TestRows | None
    sections: list[ReportSection]

    def as_json(self) -> dict[str, Any]:
        """The report for a script; rows shown as images are reduced to their captions."""
        said = [{**asdict(part), "exhibits": [one.caption for one in part.exhibits]} for part in self.sections]
        return {**plain(replace(self, sections=[])), "sections": said}


def gather(output: Path, *, ended: bool = False) -> Report:
    """Collect the report of the study in an output folder.

    Args:
        output: the study's folder.
        ended: whether the search has ended; until the process that ran it releases the folder, only that process knows.

    Raises:
        UserInputError: no study has been started there.
    """
    archive = open_archive(output, ended=ended)
    found, given = archive.ranked, archive.given
    comparisons, simple, test = compare(archive), simplest(archive), held_out_rows(archive)
    return Report(
        study=archive.name,
        model=" or ".join(given["model"].get("candidates") or [given["model"]["name_or_path"]]),
        task=given["task"]["kind"],
        metric=given["validation"]["metric"],
        folds=given["validation"]["folds"],
        seed=given["seed"],
        state=archive.state,
        stopped=archive.stopped,
        main=findings(archive, comparisons, test),
        headline=_headline(archive, comparisons, simple, test),
        winner=found[0] if found else None,
        trials=listed(archive.trained),
        defaults=sorted(record.number for record in archive.defaults.values()),
        comparisons=comparisons,
        simplest=simple,
        fronts=fronts(archive),
        importances=importances(archive),
        curves=[_curve(record) for record in archive.trained if record.curve],
        budget=budget_use(archive),
        cost=cost(archive),
        test=test,
        sections=[
            *choice.sections(archive),
            *raced.sections(archive),
            *tasks_view.sections(archive),
            *(_sections(archive) if test else []),
        ],
    )


def _sections(archive: Archive) -> list[ReportSection]:
    try:
        return report_section.read(archive.output / SECTIONS)
    except ValueError as error:
        return [ReportSection("Details of the held-out rows", f"The kept details cannot be used: {error}")]


def _curve(record: TrialRecord) -> Curve:
    return Curve(record.number, record.method, record.state, list(record.rung_epochs), list(record.curve))


def _headline(
    archive: Archive, comparisons: list[Comparison], simple: Simplest | None, test: TestRows | None
) -> list[str]:
    told = [*_progress(archive)]
    if not archive.ranked:
        states = [record.state for record in archive.records]
        return [*told, f"No trial is complete yet, so there is no winner. So far: {_ends(states)}."]
    best, metric = archive.ranked[0], archive.given["validation"]["metric"]
    untuned = " (the untuned default)" if best in archive.defaults.values() else ""
    told.append(
        f"Trial {best.number}, {best.name}{untuned}, has a mean {metric} of {best.score:.4f} over "
        f"{counted(len(best.fold_scores), 'fold')}."
    )
    if chosen := choice.verdict(archive) or raced.verdict(archive):
        told.append(chosen)
    told += (over := _passed_over(archive))
    rivals = [c for c in comparisons if c.ahead.number == best.number and c.behind.method != best.method]
    rivals = [c for c in rivals if c.behind.best]
    told += [c.verdict for c in rivals[:1]]
    if rivals and not (chosen or over):  # then the score that all trials have decided, and the leads are about it
        told.append(_whether_real(rivals))
    if simple:
        told.append(simple.verdict)
    if test:
        told.append(test.verdict)
        told += [comparison.verdict for comparison in test.comparisons]
    return [*told, *_dropped(archive), *_truncated(archive)]


def _progress(archive: Archive) -> list[str]:
    """The progress of a study that is not finished."""
    wanted, done = archive.given["search"]["trials"], len(archive.ended)
    if archive.stopped:
        return [f"The search was {archive.stopped}. Run it again to go on; what follows may then change."]
    if archive.state == FINISHED:
        return []
    how = "is still running" if archive.state == RUNNING else "was interrupted (run it again to go on)"
    return [f"The study {how}: {done} of {wanted} trials have ended, and what follows may change."]


def _passed_over(archive: Archive) -> list[str]:
    """The best trial of each method that came first but could not be refitted, saved and loaded."""
    found = {record.method: record for record in reversed(archive.ranked) if record.passed_over}
    return [
        f"Trial {record.number} ({record.name}, {record.score:.4f}) came first, but could not be trained again, saved "
        f"and loaded: {record.passed_over.rstrip('.')}."
        for record in found.values()
    ]


def _dropped(archive: Archive) -> list[str]:
    """How many rows were left out for an empty cell."""
    count = archive.attrs.get("rows", {}).get("dropped", 0)
    verb = "was" if count == 1 else "were"
    return [f"{counted(count, 'row')} with an empty cell {verb} left out."] if count else []


def _truncated(archive: Archive) -> list[str]:
    """What `max_length` cut off, if anything."""
    found = dict(archive.attrs.get("truncated", {}))
    if not found:
        return []
    told = Truncation(*(found[name] for name in Truncation.__annotations__))
    sentence = told.sentence(found["max_length"], found["truncation"])
    return [sentence] if sentence else []


def _whether_real(rivals: list[Comparison]) -> str:
    apart = [c.behind.method for c in rivals if not c.real]
    if not apart:
        return "So the method that won is better than every other here."
    return (
        f"So this study does not settle which method is better: {' or '.join(apart)} may do as well. The best trial of "
        "each method was picked for its high score, so such leads look larger than they are. More folds or more rows "
        "would show more."
    )


def _ends(states: list[str]) -> str:
    names = {PRUNED: "pruned", STOPPED: "stopped", FAIL: "failed", INFEASIBLE: "refused by the budget"}
    counts = [f"{states.count(state)} {name}" for state, name in names.items() if states.count(state)]
    return ", ".join(counts) or "no trial has ended"
