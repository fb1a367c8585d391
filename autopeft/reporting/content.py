"""The whole of a report, as plain data that a page, a terminal or a script can show."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from autopeft.common.truncation import Truncation
from autopeft.reporting import choice, raced
from autopeft.reporting.comparison import Comparison, Front, Simplest, compare, fronts, simplest
from autopeft.reporting.held_out_rows import TestRows, held_out_rows
from autopeft.reporting.importance import Importance, importances
from autopeft.reporting.spending import BudgetUse, Cost, budget_use, cost
from autopeft.study import report_section
from autopeft.study.archive import FINISHED, RUNNING, open_archive
from autopeft.study.archive import STOPPED as STOPPED_EARLY
from autopeft.study.folder import SECTIONS
from autopeft.study.record import plain
from autopeft.study.report_section import ReportSection
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, PRUNED, STOPPED

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.study.archive import Archive
    from autopeft.study.record import TrialRecord


@dataclass(frozen=True)
class Curve:
    """The mean score of a trial at each of its rungs, after so many epochs."""

    number: int
    method: str
    state: str
    epochs: list[float]
    scores: list[float]


@dataclass(frozen=True)
class Report:
    """Everything a study found out.

    Attributes:
        state: "finished", "stopped", "running" or "interrupted"; `headline` says so too where it is not finished.
        stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials";
            empty where it did not.
        headline: the argument, a sentence each, the most important first.
        winner: the best complete trial so far; None where none is complete.
        trials: those that were trained: complete ones by score, then pruned, stopped and failed.
        defaults: numbers of the trials of untuned defaults.
        test: None as long as no winner was scored on the held-out rows.
        sections: what the kind of task shows of these rows.
    """

    study: str
    model: str
    task: str
    metric: str
    folds: int
    seed: int
    state: str
    stopped: str
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
        """For a script; of rows that are shown as images, what is said of them."""
        said = [{**asdict(part), "exhibits": [one.caption for one in part.exhibits]} for part in self.sections]
        return {**plain(replace(self, sections=[])), "sections": said}


def gather(output: Path, *, ended: bool = False) -> Report:
    """Collect the report of the study in an output folder.

    Args:
        output: the study's folder.
        ended: whether the search has come to its end; only the process that ran it knows before it lets go.

    Raises:
        UserInputError: no study has been started there.
    """
    archive = open_archive(output, ended=ended)
    found, given = archive.ranked, archive.given
    order = (COMPLETE, PRUNED, STOPPED, FAIL)
    others = [record for record in archive.trained if record not in found]
    others.sort(key=lambda record: (order.index(record.state), -(record.score or 0.0), record.number))
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
        headline=_headline(archive, comparisons, simple, test),
        winner=found[0] if found else None,
        trials=[*found, *others],
        defaults=sorted(record.number for record in archive.defaults.values()),
        comparisons=comparisons,
        simplest=simple,
        fronts=fronts(archive),
        importances=importances(archive),
        curves=[_curve(record) for record in archive.trained if record.curve],
        budget=budget_use(archive),
        cost=cost(archive),
        test=test,
        sections=[*choice.sections(archive), *raced.sections(archive), *(_sections(archive) if test else [])],
    )


def _sections(archive: Archive) -> list[ReportSection]:
    try:
        return report_section.read(archive.output / SECTIONS)
    except ValueError as error:
        return [ReportSection("Rows that were kept to be shown", f"They cannot be used: {error}")]


def _curve(record: TrialRecord) -> Curve:
    return Curve(record.number, record.method, record.state, list(record.rung_epochs), list(record.curve))


def _headline(
    archive: Archive, comparisons: list[Comparison], simple: Simplest | None, test: TestRows | None
) -> list[str]:
    told = []
    states = [record.state for record in archive.records]
    wanted, done = archive.given["search"]["trials"], len(archive.ended)
    if archive.stopped:
        told.append(f"The search was {archive.stopped}, and goes on when it is run again; what follows may change.")
    elif archive.state != FINISHED:
        how = "still runs" if archive.state == RUNNING else "was interrupted, and goes on when it is run again"
        told.append(f"The study {how}: {done} of {wanted} trials have ended, and what follows may change.")
    if not archive.ranked:
        return [*told, f"No trial is complete yet, so there is no winner; {_ends(states)}."]
    best, metric = archive.ranked[0], archive.given["validation"]["metric"]
    untuned = ", the untuned default," if best in archive.defaults.values() else ""
    verb = "won" if archive.state in (FINISHED, STOPPED_EARLY) else "leads"
    told.append(
        f"{best.method} {verb}: trial {best.number}{untuned} has a mean "
        f"{metric} of {best.score:.4f} over {len(best.fold_scores)} folds ({best.name})."
    )
    if chosen := choice.verdict(archive) or raced.verdict(archive):
        told.append(chosen)
    told += (over := _passed_over(archive))
    rivals = [c for c in comparisons if c.ahead.number == best.number and c.behind.method != best.method]
    rivals = [c for c in rivals if c.behind.role.startswith("the best")]
    if chosen or over:  # by something else than the score that all trials have, of which the leads are
        told += [c.verdict for c in rivals[:1]]
    elif rivals:
        told.append(rivals[0].verdict)
        told.append(_whether_real(rivals))
    elif len({record.method for record in archive.records}) > 1:
        told.append("No other method has a complete trial to compare it with.")
    if simple:
        told.append(simple.verdict)
    if test:
        told.append(test.verdict)
        told += [comparison.verdict for comparison in test.comparisons]
    return [*told, *_truncated(archive)]


def _passed_over(archive: Archive) -> list[str]:
    """The best trial of each method that came before the winner and could not be kept."""
    found = {record.method: record for record in reversed(archive.ranked) if record.passed_over}
    return [
        f"Trial {record.number} ({record.name}, {record.score:.4f}) came before it, but could not be trained once "
        f"more, saved and loaded: {record.passed_over.rstrip('.')}."
        for record in found.values()
    ]


def _truncated(archive: Archive) -> list[str]:
    """What `max_length` cut off, where it did."""
    found = dict(archive.attrs.get("truncated", {}))
    if not found:
        return []
    told = Truncation(*(found[name] for name in Truncation.__annotations__))
    sentence = told.sentence(found["max_length"], found["truncation"])
    return [sentence] if sentence else []


def _whether_real(rivals: list[Comparison]) -> str:
    real = [c.behind.method for c in rivals if c.real]
    if len(real) == len(rivals):
        return "So the method that won is better than every other here."
    apart = [c.behind.method for c in rivals if not c.real]
    return (
        f"So this study does not settle which method is better: {' and '.join(apart)} may do as well. Each method's "
        "best was picked because it scored high, so leads of this kind look larger than they are; more folds, or more "
        "rows, would tell more."
    )


def _ends(states: list[str]) -> str:
    names = {PRUNED: "pruned", STOPPED: "stopped", FAIL: "failed", INFEASIBLE: "refused by the budget"}
    counts = [f"{states.count(state)} were {name}" for state, name in names.items() if states.count(state)]
    return ", ".join(counts).replace("were failed", "failed") or "none has ended"
