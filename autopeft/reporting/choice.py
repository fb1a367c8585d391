"""How the winner was chosen if written texts decided: both scores of the best candidates, and whether they agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.units import counted
from autopeft.reporting.writing_report import FEWEST, rank_agreement
from autopeft.study.choice import Choice
from autopeft.study.record import by_score
from autopeft.study.report_section import ReportSection, ReportTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.study.archive import Archive
    from autopeft.study.record import TrialRecord


def candidates(archive: Archive) -> list[TrialRecord]:
    """The trials that wrote, the winner first; none where the score of the search decided."""
    return [record for record in archive.ranked if record.written is not None]


def short(archive: Archive) -> str:
    """The score of texts that chose the winner, in short; "" where the score of the search decided."""
    found, choice = candidates(archive), Choice.read(archive.attrs)
    return f"It was chosen by what its folds wrote: {choice.by} {found[0].written:.4f}." if found and choice else ""


def verdict(archive: Archive) -> str:
    """What chose the winner, in a sentence; "" where the score of the search decided."""
    found, choice = candidates(archive), Choice.read(archive.attrs)
    if not found or choice is None:
        return ""
    return (
        f"It was chosen by {choice.by}: what its folds wrote for {counted(choice.rows, 'validation row')} scores "
        f"{found[0].written:.4f}, the most among the {counted(len(found), 'trial')} that lead by "
        f"{archive.given['validation']['metric']}."
    )


def sections(archive: Archive) -> list[ReportSection]:
    """The candidates with both scores, and whether they agree; empty where the score of the search decided."""
    found, choice = candidates(archive), Choice.read(archive.attrs)
    if not found or choice is None:
        return []
    metric = archive.given["validation"]["metric"]
    rows = tuple(
        (str(record.number), record.name, f"{record.score:.4f}", f"{record.written:.4f}")
        for record in found
        if record.score is not None
    )
    told = (
        f"The winner was chosen by {choice.by}. The fold models of each of these trials wrote texts for the same "
        f"{counted(choice.rows, 'validation row')}. {_agreement(found, metric, choice.by)}"
    )
    failed = "".join(f" Trial {number} could not write: {reason}" for number, reason in choice.failed.items())
    table = ReportTable(("trial", "candidate", f"mean {metric}", choice.by), rows, (0, 2, 3))
    return [ReportSection("How the winner was chosen", told + failed, table=table)]


def _agreement(found: Sequence[TrialRecord], metric: str, by: str) -> str:
    """Whether both scores put the candidates in the same order."""
    first = by_score([*found])[0]
    told = f"The best of them by {metric} is {'also the winner' if first is found[0] else f'trial {first.number}'}."
    tau = rank_agreement([record.score or 0.0 for record in found], [record.written or 0.0 for record in found])
    if len(found) >= FEWEST and tau is not None:
        told += f" Rank agreement of {metric} with {by} (Kendall's tau, 1 is the same order): {tau:+.2f}."
    return told
