"""What a study may do: what it tries first, what it stops, how it chooses. Pruner, rungs and race are the package's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.special import ndtr
from trials import best_first

from autopeft.methods.length import epochs_for
from autopeft.search.pruner import judge
from autopeft.search.race import Rules
from autopeft.training.rungs import doubled, rung_ends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trials import Search


SHORT = 4.0
"""Epochs of a trial as they were before lengths went by the rows."""


class Pruner(Protocol):
    """Trains the candidates of a study, some of them to their end."""

    def run(self, search: Search, order: Sequence[int]) -> None:
        """In this order."""


@dataclass(frozen=True)
class Never:
    """Trains every candidate to its end."""

    def run(self, search: Search, order: Sequence[int]) -> None:
        """One after the other."""
        for candidate in order:
            search.finish(candidate)


@dataclass(frozen=True)
class Halving:
    """The package's: one candidate after the other, each stopped at a rung where `judge` says so.

    Attributes:
        two: whether two defaults are protected, the best one elsewhere and whichever is ahead at a rung, as where a
            study starts from the portfolio; otherwise every default is.
        first: epochs to the first rung, which double from there; None for the package's own.
    """

    two: bool = False
    first: float | None = None

    def run(self, search: Search, order: Sequence[int]) -> None:
        """One after the other."""
        scores: dict[int, list[tuple[int, float]]] = {}
        longest = longest_of(search, order)
        for candidate in order:
            if self._passes(search, candidate, scores, longest):
                search.finish(candidate)

    def _passes(self, search: Search, candidate: int, scores: dict[int, list[tuple[int, float]]], longest: int) -> bool:
        length = max(1, round(search.length[candidate]))
        ends = doubled(self.first, length) if self.first else rung_ends(length, search.size, longest)
        for number, epochs in enumerate(ends):
            last = number == len(ends) - 1
            own = search.end[candidate] if last else search.reach([candidate], epochs).score[0]
            if math.isnan(own):  # no point was recorded there
                continue
            at_rung = scores.setdefault(number, [])
            at_rung.append((candidate, own))
            behind = judge([score for _, score in at_rung], own)
            if not last and behind and not self._protected(search, candidate, at_rung):
                return False
        return True

    def _protected(self, search: Search, candidate: int, at_rung: Sequence[tuple[int, float]]) -> bool:
        """Whether it goes on in any case; its own score is the last at the rung."""
        if not search.default[candidate]:
            return False
        if not self.two or candidate == search.comparator:
            return True
        return all(score < at_rung[-1][1] for other, score in at_rung[:-1] if search.default[other])


def longest_of(search: Search, order: Sequence[int]) -> int:
    """Epochs of the longest training in a study's range, which its rungs go by; where all are short, of these."""
    longest = max(search.length[candidate] for candidate in order)
    return round(longest) if longest <= SHORT else int(epochs_for(search.size).high)


@dataclass(frozen=True)
class Batch:
    """All candidates to a rung, then the best of them to the next.

    Attributes:
        keep: how many go on after each rung, those protected among them.
        rungs: where these are, in epochs; None for the package's own, as the longest candidate has them.
        protect: whether the best default elsewhere and the best default at the rung go on in any case.
        by_loss: whether the loss ranks, rather than the score.
    """

    keep: tuple[int, ...] = (8, 5, 3)
    rungs: tuple[float, ...] | None = None
    protect: bool = True
    by_loss: bool = False

    def run(self, search: Search, order: Sequence[int]) -> None:
        """All together, rung by rung."""
        alive = list(order)
        longest = max(search.length[candidate] for candidate in alive)
        rungs = self.rungs or rung_ends(max(1, round(longest)), search.size, longest_of(search, alive))[:-1]
        for keep, rung in zip(self.keep, rungs, strict=False):
            reached = search.reach(alive, rung)
            if np.isnan(reached.score).mean() > 0.5:  # too few points were recorded there
                continue
            ranked = [alive[i] for i in best_first(reached, by_loss=self.by_loss)]
            alive = self.kept(search, ranked, dict(zip(alive, reached.score, strict=True)), rung / longest, keep)
        for candidate in alive:
            search.finish(candidate)

    def kept(
        self, search: Search, ranked: list[int], scores: dict[int, float], fraction: float, keep: int
    ) -> list[int]:
        """Those that go on after a rung at a fraction of the length."""
        return with_protected(ranked, self.protected(search, ranked), keep)

    def protected(self, search: Search, ranked: list[int]) -> list[int]:
        """Those that go on in any case."""
        if not self.protect:
            return []
        defaults = [candidate for candidate in ranked if search.default[candidate]]
        return [*defaults[:1], *([search.comparator] if search.comparator in ranked else [])]


@dataclass(frozen=True)
class AtRisk(Batch):
    """After each rung those go on whose end may be better than the leader's with a chance of at least `risk`."""

    risk: float = 0.05

    def kept(
        self, search: Search, ranked: list[int], scores: dict[int, float], fraction: float, keep: int
    ) -> list[int]:
        """Those that may be the best at their end, as recorded leads at this rung turned out."""
        slope = search.constants.slope_at(fraction)
        beside = scores.get(search.comparator, math.nan)
        if slope is None or math.isnan(beside):
            return ranked
        ends = {c: slope.intercept + slope.slope * (scores[c] - beside) for c in ranked if not math.isnan(scores[c])}
        ends[search.comparator] = 0.0
        best = max(ends.values())
        deviation = math.sqrt(2 * slope.variance)
        hoping = [c for c in ranked if c not in ends or ndtr((ends[c] - best) / deviation) >= self.risk]
        return list(dict.fromkeys([*hoping, *self.protected(search, ranked)]))


def with_protected(ranked: Sequence[int], protected: Sequence[int], keep: int) -> list[int]:
    """The best so many; who is protected and not among them takes the place of the last who is not."""
    kept = list(ranked[:keep])
    missing = [candidate for candidate in dict.fromkeys(protected) if candidate not in kept]
    others = [candidate for candidate in kept if candidate not in protected]
    out = others[max(len(others) - len(missing), 0) :]
    return [*(candidate for candidate in kept if candidate not in out), *missing]


@dataclass(frozen=True)
class Policy:
    """A way to run a study.

    Attributes:
        name: as tables show it.
        start: "comparator" tries nothing but the best default elsewhere; "defaults" all of them, then draws near them;
            "portfolio" what did best elsewhere, then draws near defaults; "random" any order; "all" the whole pool.
        length: "short" as they were, "drawn" evenly from those recorded, "advised" by other groups, or "longest".
        trials: at most so many.
        pruner: what is stopped.
        early: whether training ends where the mean over the folds does not rise any more.
        choice: "mean" the highest mean over folds; "posterior" the highest mean of the posterior, with all that other
            groups tell; "shipped" the same with what the package knows beforehand; "surrogate" the same with a
            regression on the configurations as its prior.
        race: its rules; None where there is none.
        share: of all rows, what the race has.
        form: "refit" where a model of all rows was recorded, of the comparator too; "folds" the mean of folds' models.
    """

    name: str
    start: str = "defaults"
    length: str = "short"
    trials: int = 16
    pruner: Pruner = Halving()
    early: bool = False
    choice: str = "mean"
    race: Rules | None = None
    share: float = 0.3
    form: str = "refit"


A = Policy("A no search", start="comparator", length="advised", trials=1, pruner=Never())
B = Policy("B today's")
C = Policy("C with length", length="drawn", early=True)
D = Policy("D proposed", "portfolio", "advised", pruner=Batch(), choice="posterior", race=Rules())
SHIPPED = replace(D, name="as shipped", pruner=Halving(two=True), choice="shipped", share=0.3 / 1.3)
POLICIES = (
    A,
    B,
    C,
    D,
    SHIPPED,
    *(Policy(f"{i}-epoch", length="longest", pruner=Batch((1,), (float(i),), protect=False)) for i in (1, 2, 4)),
    replace(B, name="B in random order", start="random"),
    replace(D, name="D pruned by loss", pruner=Batch(by_loss=True)),
    replace(D, name="D without race", race=None),
    replace(SHIPPED, name="as shipped, no race", race=None),
    replace(D, name="D stopped early", early=True),
    replace(D, name="D by surrogate", choice="surrogate"),
    replace(D, name="D pruned at risk", pruner=AtRisk()),
    replace(D, name="D from defaults", start="defaults"),
    Policy("perfect chooser", "all", "advised", 10**6, Never(), choice="posterior"),
)
"""What is compared. A table has orders but no proposals, so draws near defaults are the recorded ones, in any order;
and rates are as they were recorded, not scaled with the length. The last one trains the whole pool, and so shows what
the noise of its folds leaves to be had."""
