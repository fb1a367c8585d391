"""How the winner was chosen where a race on fresh folds decided: what the finalists scored, and how sure it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopeft.study.raced import Raced, ruling_on
from autopeft.study.report_section import ReportSection, ReportTable

if TYPE_CHECKING:
    from autopeft.study.archive import Archive


def verdict(archive: Archive) -> str:
    """How sure it is that the winner is better than the best default, in a sentence; "" where no race chose it."""
    ruling = ruling_on(archive.attrs, archive.ranked[0]) if archive.ranked else None
    return ruling.sentence if ruling else ""


def short(archive: Archive) -> str:
    """The same without the folds and the tie zone, for who has read already who won."""
    told = verdict(archive).partition(" (")[0].removeprefix(f"{archive.ranked[0].method}'s untuned default won: ")
    return f"{told[0].upper()}{told[1:].rstrip('.')}." if told else ""


def status(archive: Archive) -> str:
    """The same; of a race that goes on, how many folds ran."""
    raced = Raced.read(archive.attrs)
    if raced and raced.ruling is None:
        return f"race: {len(raced.runs)} fresh folds ran of {len(raced.finalists)} finalists"
    return verdict(archive)


def sections(archive: Archive) -> list[ReportSection]:
    """The finalists with their scores in the search and in the race; nothing where there was none."""
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
        "The leaders of the search and the best default ran fresh folds: other splits of the training rows than those "
        "that made them leaders. A pair ran each fold, the leader and whoever was most likely to be better, so means "
        "over different folds do not compare. What is expected is the mean of one model of all scores, the search's "
        "and the race's, and the highest of those wins; of nearly equal ones a default, or the cheaper."
    )
    told += "".join(f" Trial {number} left the race: {reason.rstrip('.')}." for number, reason in raced.left.items())
    metric = archive.given["validation"]["metric"]
    columns = ("trial", "candidate", f"mean {metric}", "on fresh folds", "fresh folds", "expected")
    return [ReportSection("The race on fresh folds", told, table=ReportTable(columns, rows, (0, 2, 3, 4, 5)))]
