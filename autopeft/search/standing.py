"""The standing of a race: how good a study's candidates are after their folds, who runs next, and who wins."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import stdtr

from autopeft.search.posterior import SMALLEST, Run, Variances, residual_squares
from autopeft.search.race import Entrant, Race, finalists
from autopeft.study.raced import Ruling
from autopeft.tasks import user_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from autopeft.search.race import Verdict
    from autopeft.study.raced import Raced
    from autopeft.study.record import TrialRecord

BETWEEN, FLOOR, DEGREES = 0.048**2, 0.3, 4
"""How candidates' true scores scatter around what is expected of their method; the gap that no repetition on the same
rows removes, as a share of the folds' variance; and how many degrees of freedom the usual variances count for.

The first is the median over recorded groups of tasks, each left out once (`benchmarks/bank/variances.py`). The second
stands for the correction of Nadeau & Bengio 2003, which for k folds of rows drawn anew is 1/(k - 1): 0.5 for three.
Folds of one recorded task deviate 0.4 times as much as usual, those of another 2.4 times, so a study's own trials soon
outweigh this. But two candidates that score the same on two folds are not taken as equal for good."""

FOLDS = 0.125
"""Variance of a candidate's score on a fold, times the rows that the fold validates: a deviation of 5 points with 50
rows, and of 2.5 with 200, as on recorded tasks (`benchmarks/bank/variances.py`)."""

TEMPERATURE = 1.0
"""Temperature of the stated chances (`Posterior.chance`); 1 as long as no recorded studies say otherwise."""

KNOWN = 1e6
"""Degrees of freedom of a variance that is as good as known."""


def usual(rows: int) -> Variances:
    """How scores that are shares, such as accuracy, scatter if each fold validates so many rows."""
    return Variances(BETWEEN, FOLDS / rows, FLOOR, DEGREES)


class Beforehand(NamedTuple):
    """What is known of a race before any run.

    Attributes:
        variances: how scores scatter that are shares (`usual`).
        expected: by method, how far its score is expected to be above that of the best fixed default, in shares. Of
            any other method nothing is known, and it is expected to be as good.
    """

    variances: Variances
    expected: Mapping[str, float] = MappingProxyType({})


class Pair(NamedTuple):
    """Trials that run the next fresh fold, one or two, by number."""

    fold: int
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Standing:
    """A race after some runs.

    Attributes:
        records: of the trials that it may choose.
        runs: their runs, by place in `records`; folds of the search first, then fresh ones.
        race: the rules, by place in `records`; scores in units of `unit`.
        degrees: degrees of freedom that the variance of folds rests on.
        unit: what 1 stands for in the metric's own unit: 1 for a share. Scores of any other metric are scaled so that
            their folds deviate as shares usually do.
        usual_folds: the usual deviation of a share on a fold.
        points: whether scores are shares, and so shown in points.
    """

    records: Sequence[TrialRecord]
    runs: Sequence[Run]
    race: Race
    degrees: float
    unit: float
    points: bool
    usual_folds: float

    @classmethod
    def of(
        cls,
        found: Sequence[TrialRecord],
        raced: Raced | None,
        defaults: Collection[int],
        metric: str,
        known: Beforehand,
    ) -> Standing:
        """The standing after the search and the fresh folds of a race so far.

        Args:
            found: the trials that may win (`raced.may_win`), two or more.
            raced: the race so far; those that left it are out.
            defaults: numbers of untuned defaults.
            metric: by name.
            known: what is known before any run.
        """
        left = raced.left if raced else {}
        stay = [record for record in found if record.number not in left]
        place = {record.number: at for at, record in enumerate(stay)}
        runs = [Run(at, fold, score) for at, one in enumerate(stay) for fold, score in enumerate(one.fold_scores)]
        points = not (metric.startswith("neg_") or user_metric.is_own(metric))
        deviation = math.sqrt(known.variances.folds)
        unit = 1.0 if points else _unit(runs, deviation)
        folds = len(found[0].fold_scores)
        runs += [
            Run(place[r.number], folds + r.fold, r.score) for r in (raced.runs if raced else ()) if r.number in place
        ]
        runs = [run._replace(score=run.score / unit) for run in runs]
        methods = [str(one.params.get("method", one.method)) for one in stay]  # without the base model it is on
        entrants = [
            Entrant(method, one.number in defaults, float(one.trainable_params or 0), known.expected.get(method, 0.0))
            for one, method in zip(stay, methods, strict=True)
        ]
        running = [place[number] for number in (raced.finalists if raced else ()) if number in place]
        variances = variances_after(runs, entrants, known.variances)
        race = Race(entrants, replace(variances, degrees=math.inf), finalists=running)  # include these runs
        return cls(stay, runs, race, variances.degrees, unit, points, deviation)

    def finalists(self, always: Collection[int] = ()) -> tuple[int, ...]:
        """Numbers of the trials that run in the race, with those of `always` that may win."""
        fixed = [at for at, record in enumerate(self.records) if record.number in always]
        places = finalists(self.race.posterior(self.runs), self.race.entrants, fixed)
        return tuple(self.records[at].number for at in places)

    def turn(self, fresh: Callable[[int], list[int]]) -> Pair | None:
        """Who runs which fresh fold next; None where the race is decided.

        Args:
            fresh: gives the numbers of that many fresh folds, or of fewer where there are no more.
        """
        folds = len(self.records[0].fold_scores)
        begun = {run.block for run in self.runs if run.block >= folds}
        blocks = [folds + number for number in fresh(len(begun) + 1)]
        found = self.race.turn(self.runs, lambda at: blocks)
        return Pair(found.block - folds, tuple(self.records[at].number for at in found.candidates)) if found else None

    def ruling(self) -> Ruling:
        """Who wins as things stand, and how sure that is."""
        found, verdict = self.race.posterior(self.runs), self.race.verdict(self.runs)
        score = np.mean([np.mean(record.fold_scores) for record in self.records])
        level = float(score) - self.unit * float(found.mean.mean())
        expected = {
            self.records[at].number: level + self.unit * float(found.mean[at])
            for at in self.race.finalists or range(len(self.records))
        }
        ruling = Ruling(self.records[verdict.winner].number, expected, "")
        if verdict.rival is not None:
            chance, above, below = (
                self._chance(verdict.lead, verdict.deviation, by)
                for by in (0.0, self.race.rules.rope, -self.race.rules.rope)
            )
            rival = self.records[verdict.rival].number
            ruling = replace(ruling, rival=rival, chance=chance, alike=below - above)
        core = self._core(verdict, ruling)
        return replace(ruling, short=f"{_capitalised(core)}.", sentence=self._sentence(core, verdict, ruling))

    def _chance(self, lead: float, deviation: float, by: float = 0.0) -> float:
        """The chance that a lead is truly above `by`, by Student's t, as the deviation is an estimate."""
        return float(stdtr(min(self.degrees, KNOWN), (lead - by) / (TEMPERATURE * deviation)))

    def _core(self, verdict: Verdict, ruling: Ruling) -> str:
        """How sure it is that the winner is better than the best default, or that none is better than it."""
        if self.race.entrants[verdict.winner].default:
            found, others = self.race.posterior(self.runs), {*range(len(self.records))} - {verdict.winner}
            chances = [self._chance(*found.difference(at, verdict.winner)) for at in others]
            return f"no candidate was better with a probability above {max([0.01, *chances]):.2f}"
        if ruling.chance is None:
            return "no untuned default completed, so there is nothing to compare it with"
        (rival,) = (record for record in self.records if record.number == ruling.rival)
        return f"it is better than {rival.method}'s default with a probability {_probability(ruling.chance)}"

    def _sentence(self, core: str, verdict: Verdict, ruling: Ruling) -> str:
        """The same with what it rests on: folds, the probability of a tie, and who is ahead in one."""
        winner, rules = self.records[verdict.winner], self.race.rules
        default = self.race.entrants[verdict.winner].default
        ran = sum(run.candidate == verdict.winner for run in self.runs)
        rests_on = f"{len(winner.fold_scores)} + {ran - len(winner.fold_scores)} folds"
        if ruling.chance is not None and not default:
            rests_on += f"; probability of a tie within {self._told(rules.rope)}: {ruling.alike:.2f}"
        told = f"{winner.method}'s untuned default won: {core}" if default else _capitalised(core)
        told += f" ({rests_on})"
        if verdict.leader != verdict.winner:
            ahead = self.records[verdict.leader]
            told += f"; trial {ahead.number} ({ahead.method}) is ahead by at most {self._told(rules.tie)}, and in "
            told += "such a tie a default or the cheaper candidate wins"
        return f"{told}."

    def _told(self, difference: float) -> str:
        """A difference of scores in words."""
        if self.points:
            return f"{100 * difference:g} points"
        return f"{difference * self.unit:.2g}, {difference / self.usual_folds:.2g} of a fold's deviation"


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _probability(chance: float) -> str:
    """A probability in two places, never shown as 0 or 1."""
    return "above 0.99" if chance >= 0.995 else "below 0.01" if chance < 0.005 else f"of {chance:.2f}"


def _unit(runs: Sequence[Run], usual_folds: float) -> float:
    """The unit that makes a fold's deviation the usual one of a share; 1 where folds do not deviate."""
    squares, degrees = residual_squares(runs)
    deviation, largest = math.sqrt(squares / max(degrees, 1)), max(abs(run.score) for run in runs)
    return deviation / usual_folds if deviation > SMALLEST * largest else 1.0


def variances_after(runs: Sequence[Run], entrants: Sequence[Entrant], usually: Variances) -> Variances:
    """The usual variances and those of the study's own runs, weighted by their degrees of freedom.

    A block that only half of a pair has run yet does not count, so an interrupted race goes on as it would have.

    Args:
        runs: by place among the entrants.
        entrants: whose runs they are.
        usually: what is known before any run (`usual`).
    """
    ran = [run.block for run in runs]
    shared = [run for run in runs if ran.count(run.block) > 1]
    if not shared:
        return usually
    own = Variances.estimated(shared, [entrant.prior for entrant in entrants], usually.floor)

    def together(known: float, seen: float, degrees: float) -> float:
        return (usually.degrees * known + degrees * seen) / (usually.degrees + degrees)

    return Variances(
        together(usually.between, own.between, len(entrants) - 1),
        together(usually.folds, own.folds, own.degrees),
        usually.floor,
        usually.degrees + own.degrees,
    )
