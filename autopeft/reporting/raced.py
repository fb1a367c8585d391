"""How a race on fresh folds chose the winner: the finalists' scores, and how sure the choice is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopeft.common.units import counted
from autopeft.study.raced import Raced, ruling_on
from autopeft.study.report_section import ReportSection, ReportTable

if TYPE_CHECKING:
    from autopeft.study.archive import Archive
    from autopeft.study.raced import Ruling


def verdict(archive: Archive) -> str:
    """How sure it is that the winner is better than the best default, in a sentence; "" if no race chose it."""
    ruling = _ruling(archive)
    return ruling.sentence if ruling else ""


def short(archive: Archive) -> str:
    """The same without the folds and the probability of a tie, for readers who already know the winner."""
    ruling = _ruling(archive)
    return (ruling.short or ruling.sentence) if ruling else ""


def _ruling(archive: Archive) -> Ruling | None:
    return ruling_on(archive.attrs, archive.ranked[0]) if archive.ranked else None


def status(archive: Archive) -> str:
    """The same; if the race goes on, how many folds ran."""
    raced = Raced.read(archive.attrs)
    if raced and raced.ruling is None:
        return (
            f"The race goes on: {counted(len(raced.runs), 'fold')} so far, {counted(len(raced.finalists), 'finalist')}."
        )
    return verdict(archive)


def sections(archive: Archive) -> list[ReportSection]:
    """The finalists with their scores in the search and in the race; empty if there was no race."""
    raced, found = Raced.read(archive.attrs), [one for one in archive.ranked if one.place is not None]
    if raced is None or not found:
        return []
    rows = tuple(
        (
            str(record.number),
            record.name,
            f"{record.score:.4f}",
            f"{np.mean(fresh):.4f}" if (fresh := raced.fresh(record.number)) else "–",
            str(len(fresh)),
            f"{record.expected:.4f}",
        )
        for record in found
    )
    told = (
        "The leaders of the search and the best default were trained on fresh folds, which are other splits of the "
        "training rows. A pair ran each fresh fold: the leader, and the trial most likely to be better. So means over "
        "different folds are not comparable. The expected score is the mean from one model of all scores, in the "
        "search and in the race. The highest expected score wins; of nearly equal ones, a default or the cheaper."
    )
    told += "".join(f" Trial {number} left the race: {reason.rstrip('.')}." for number, reason in raced.left.items())
    metric = archive.given["validation"]["metric"]
    columns = ("trial", "candidate", f"mean {metric}", "mean on fresh folds", "fresh folds", "expected score")
    return [ReportSection("The race on fresh folds", told, table=ReportTable(columns, rows, (0, 2, 3, 4, 5)))]
