"""Compares candidates: whether a lead is significant, which candidate is the cheapest good one, what a score costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.reporting.statistics import (
    CONFIDENCE,
    Difference,
    in_a_word,
    max_t,
    one_standard_error,
    pareto_front,
    standard_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autopeft.study.archive import Archive
    from autopeft.study.record import TrialRecord


@dataclass(frozen=True)
class Side:
    """A candidate in a comparison: its trial, its mean score, and what it stands for.

    Attributes:
        best: whether it is the best of its method.
        default: whether it is its method's untuned default; it may be both.
    """

    number: int
    method: str
    score: float
    best: bool
    default: bool

    def __str__(self) -> str:
        if not self.best:
            return f"the default of {self.method} (trial {self.number})"
        return f"the best of {self.method} ({'its default, ' * self.default}trial {self.number})"


@dataclass(frozen=True)
class Comparison:
    """Two candidates on the same folds.

    Attributes:
        ahead, behind: the one with the higher mean score first.
        difference: adjusted for all comparisons of the study (`max_t`); None where that cannot be computed.
        p: its p-value; None likewise.
        real: whether p is small enough.
        verdict: the result in words.
    """

    ahead: Side
    behind: Side
    difference: Difference | None
    p: float | None
    real: bool
    verdict: str

    @property
    def lead(self) -> float:
        """The lead of one mean score over the other."""
        return self.ahead.score - self.behind.score

    @property
    def word(self) -> str:
        """The result of the test: "significant", "inconclusive" or "tie"."""
        return in_a_word(self.lead, self.real)


@dataclass(frozen=True)
class Simplest:
    """The choice by the one-standard-error rule, the best trial, and the score that had to be reached."""

    number: int
    best: int
    error: float
    threshold: float
    verdict: str


@dataclass(frozen=True)
class Point:
    """A complete trial with its score and its cost."""

    number: int
    method: str
    score: float
    cost: float


@dataclass(frozen=True)
class Front:
    """Complete trials against one cost; `best` are the numbers of those that no other beats, the cheapest first."""

    cost: str
    unit: str
    points: list[Point]
    best: list[int]


COSTS: dict[str, tuple[str, Callable[[TrialRecord], float | None]]] = {
    "trained parameters": ("", lambda record: record.trainable_params),
    "saved size": ("bytes", lambda record: record.saved_bytes),
    "peak memory": ("bytes", lambda record: record.measured_memory or record.predicted_memory),
    "time of the trial": ("seconds", lambda record: record.seconds),
}


def compare(archive: Archive) -> list[Comparison]:
    """Compare the best of every method with that of every other, and the winner with every untuned default."""
    best: dict[str, TrialRecord] = {}
    for record in archive.ranked:
        best.setdefault(record.method, record)
    leaders = list(best.values())
    defaults = {method: record for method, record in archive.defaults.items() if record.complete}
    pairs = [(a, b) for place, a in enumerate(leaders) for b in leaders[place + 1 :]]
    pairs += [(leaders[0], d) for d in defaults.values() if d not in leaders] if leaders else []
    # A winner that was chosen by its texts, or took another's place, may have the lower score.
    pairs = [(a, b) if (a.score or 0.0) >= (b.score or 0.0) else (b, a) for a, b in pairs]
    sides = {record.number: _side(record, defaults, best) for pair in pairs for record in pair}
    differences = _differences(archive.ranked, pairs) or [None] * len(pairs)
    return [
        _judge(sides[a.number], sides[b.number], difference, len(a.fold_scores))
        for (a, b), difference in zip(pairs, differences, strict=True)
    ]


def _differences(
    found: Sequence[TrialRecord], pairs: Sequence[tuple[TrialRecord, TrialRecord]]
) -> Sequence[Difference | None]:
    """The difference of each pair, from the folds of all complete trials whose folds did not collapse."""
    place = {record.number: at for at, record in enumerate(found)}
    learnt = [place[record.number] for record in found if not record.collapsed]
    return max_t([one.fold_scores for one in found], [(place[a.number], place[b.number]) for a, b in pairs], learnt)


def simplest(archive: Archive) -> Simplest | None:
    """The cheapest complete trial, by trained parameters, within one standard error of the best.

    None where no trial is complete, or the score did not choose the winner.
    """
    found = [record for record in archive.ranked if not record.passed_over]
    if not found or found[0].written is not None or found[0].place is not None:
        return None
    scores, errors = [record.score or 0.0 for record in found], [standard_error(r.fold_scores) for r in found]
    trained = [record.trainable_params or 0 for record in found]  # known of complete trials
    chosen = found[one_standard_error(scores, errors, trained)]
    best, error = found[0], 0.0 if math.isnan(errors[0]) else errors[0]
    within = f"within one standard error ({error:.4f}) of the best score"
    if chosen is best:
        verdict = f"The winner is also the simplest choice: no candidate with fewer parameters scores {within}."
    else:
        few, many = trained[found.index(chosen)], trained[0]
        verdict = (
            f"There is a simpler choice: trial {chosen.number} ({chosen.method}) scores {chosen.score:.4f}, which is "
            f"{within}, and trains {few:,} parameters, {few / many:.0%} of the winner's {many:,}."
        )
    return Simplest(chosen.number, best.number, error, scores[0] - error, verdict)


def fronts(archive: Archive) -> list[Front]:
    """Score against each cost that is known of complete trials."""
    found = []
    for cost, (unit, price) in COSTS.items():
        points = [
            Point(record.number, record.method, record.score or 0.0, float(value))
            for record in archive.ranked
            if (value := price(record)) is not None
        ]
        best = pareto_front([point.score for point in points], [point.cost for point in points])
        if points:
            found.append(Front(cost, unit, points, [points[place].number for place in best]))
    return found


def _side(record: TrialRecord, defaults: dict[str, TrialRecord], best: dict[str, TrialRecord]) -> Side:
    default = defaults.get(record.method) is record
    return Side(record.number, record.method, record.score or 0.0, best[record.method] is record, default)


def _judge(ahead: Side, behind: Side, difference: Difference | None, folds: int) -> Comparison:
    lead, real = ahead.score - behind.score, difference is not None and difference.p <= 1 - CONFIDENCE
    word = in_a_word(lead, real)
    verdict = f"{ahead} leads {behind} by {lead:.4f}"
    if word == "tie":
        verdict = f"{ahead} ties with {behind}."
    elif difference is None:
        verdict += ". No test is possible, because the lead is the same on every fold."
    else:
        interval = f"{CONFIDENCE:.0%} interval {difference.low:+.4f} to {difference.high:+.4f}, p = {difference.p:.2g}"
        verdict += f": {word} ({interval})."
        if not real and difference.mean > 0:
            needed = difference.high - difference.mean
            verdict += f" With {folds} folds and this many comparisons, it would take a lead above {needed:.4f}."
    p = None if difference is None else difference.p
    return Comparison(ahead, behind, difference, p, real, verdict[0].upper() + verdict[1:])
