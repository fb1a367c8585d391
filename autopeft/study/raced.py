"""What a study keeps about its race on fresh folds: who ran, their scores, and who won."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from autopeft.study.record import TrialRecord

RACE = "race"
"""The user attribute of an Optuna study that holds it."""


class FreshRun(NamedTuple):
    """The score of a trial's candidate on a fresh fold; fresh folds are numbered from 0, over all fresh splits."""

    number: int
    fold: int
    score: float


@dataclass(frozen=True)
class Ruling:
    """Who won a race, and how sure that is.

    Attributes:
        winner: number of the trial.
        expected: expected scores of the finalists, by number: posterior means, at the level of the search's scores.
        sentence: how sure the choice is and what that rests on, in words.
        rival: number of the trial of the best other default; None where there is none.
        chance: probability that the winner is truly better than the rival; None without a rival.
        alike: probability that the two are too close to matter; None without a rival.
        short: how sure the choice is, without what that rests on; "" in studies of earlier versions.
    """

    winner: int
    expected: Mapping[int, float]
    sentence: str
    rival: int | None = None
    chance: float | None = None
    alike: float | None = None
    short: str = ""


@dataclass(frozen=True)
class Raced:
    """A race so far.

    Attributes:
        among: numbers of the trials that it chooses from.
        finalists: numbers of those that run.
        runs: on fresh folds, in their order; those of an earlier race among fewer trials are kept.
        left: finalists that run no more and cannot win, with the reason.
        rows: number of rows that fresh folds trained on, counted once per epoch.
        seconds: wall time.
        ruling: None as long as the race goes on.
    """

    among: tuple[int, ...]
    finalists: tuple[int, ...]
    runs: tuple[FreshRun, ...] = ()
    left: Mapping[int, str] = field(default_factory=dict)
    rows: int = 0
    seconds: float = 0.0
    ruling: Ruling | None = None

    @classmethod
    def read(cls, attrs: Mapping[str, Any]) -> Raced | None:
        """A study's race, from its user attributes; None where there was none, or it has not begun."""
        kept = attrs.get(RACE)
        if not kept:
            return None
        ruling = kept["ruling"]
        return cls(
            **{
                **kept,
                "among": tuple(kept["among"]),
                "finalists": tuple(kept["finalists"]),
                "runs": tuple(FreshRun(*run) for run in kept["runs"]),
                "left": _numbered(kept["left"]),
                "ruling": Ruling(**{**ruling, "expected": _numbered(ruling["expected"])}) if ruling else None,
            }
        )

    def kept(self) -> dict[str, Any]:
        """The race for JSON."""
        found = {**asdict(self), "left": _named(self.left), "runs": [[*run] for run in self.runs]}
        if self.ruling:
            found["ruling"] = {**found["ruling"], "expected": _named(self.ruling.expected)}
        return found

    def holds(self, found: Iterable[TrialRecord]) -> bool:
        """Whether it was decided among the present trials."""
        return self.ruling is not None and self.among == numbers(found)

    def put_in(self, found: Sequence[TrialRecord]) -> list[TrialRecord]:
        """These trials, the finalists with their place and expected score; unchanged while none has won yet."""
        if self.ruling is None or not self.holds(found):
            return [*found]
        ruling = self.ruling
        order = sorted(ruling.expected, key=lambda number: (number != ruling.winner, -ruling.expected[number]))
        place = {number: place for place, number in enumerate(order, 1)}
        return [
            replace(one, place=place[one.number], expected=ruling.expected[one.number]) if one.number in place else one
            for one in found
        ]

    def fresh(self, number: int) -> list[float]:
        """The scores of a trial's candidate on fresh folds."""
        return [run.score for run in self.runs if run.number == number]


def ruling_on(attrs: Mapping[str, Any], best: TrialRecord) -> Ruling | None:
    """The ruling of the race, if one chose the best trial; from a study's user attributes."""
    raced = Raced.read(attrs)
    return raced.ruling if raced and best.place == 1 else None


def may_win(record: TrialRecord) -> bool:
    """Whether a race may choose this trial: it is complete, each fold has a score, and none collapsed."""
    return record.complete and not record.collapsed and all(map(math.isfinite, record.fold_scores))


def numbers(found: Iterable[TrialRecord]) -> tuple[int, ...]:
    """The numbers of the trials that a race may choose, in order."""
    return tuple(sorted(record.number for record in found if may_win(record)))


def _numbered(content: Mapping[str, Any]) -> dict[int, Any]:
    return {int(number): value for number, value in content.items()}


def _named(content: Mapping[int, Any]) -> dict[str, Any]:
    return {str(number): value for number, value in content.items()}
