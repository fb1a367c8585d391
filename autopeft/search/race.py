"""The race at the end of a search: its leaders and the defaults they must beat run fresh folds until one is ahead.

The folds of the search chose the leaders, so their scores flatter them; folds of other splits do not. Each fresh fold
goes where it decides most: to the leader and to the candidate most likely to be better than it (top two; Qin et al.
2017, Shang et al. 2020, arXiv:1910.10945), both on the same fold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autopeft.search.posterior import Posterior, Run, Variances

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


@dataclass(frozen=True)
class Entrant:
    """A candidate that a race may choose.

    Attributes:
        method: its name.
        default: whether it is that method's untuned default.
        cost: of keeping or running it; the cheaper wins a tie.
        prior: its expected score, relative to a level that all share.
        between: variance of its true score around `prior`: smaller where other studies tell it. None for the one in
            the race's variances.
    """

    method: str
    default: bool = False
    cost: float = 0.0
    prior: float = 0.0
    between: float | None = None


@dataclass(frozen=True)
class Rules:
    """When a race ends, in chances and in the score's unit.

    Attributes:
        sure: the race ends at this chance that the leader is better than its challenger;
        alike: or at this chance that the two are within `rope` of each other, too close to matter;
        rope: half the width of that zone;
        settled: or at this chance that more folds would not change who leads.
        hopeless: a finalist runs no more at this chance that it is more than `behind` below the leader.
        behind: see `hopeless`.
        tie: how much lower the mean of a default, or of a cheaper candidate, may be for it to win still.
    """

    sure: float = 0.9
    alike: float = 0.8
    rope: float = 0.005
    settled: float = 0.95
    hopeless: float = 0.95
    behind: float = 0.02
    tie: float = 0.0025


class Turn(NamedTuple):
    """What runs next: these candidates, one or two, on this block."""

    block: int
    candidates: tuple[int, ...]


class Verdict(NamedTuple):
    """Who wins, and how sure that is.

    Attributes:
        winner: by number.
        leader: the highest mean; not the winner where a tie went to a default or to the cheaper.
        rival: the best of the other defaults; None where there is none.
        lead, deviation: mean and standard deviation of how far the winner's true score is above the rival's; these and
            the following are NaN without a rival.
        better, alike, worse: chances that the winner is truly better than the rival by more than the rope, within it,
            or worse by more than the rope.
        chance: that it is truly better than the rival at all.
    """

    winner: int
    leader: int
    rival: int | None
    lead: float
    deviation: float
    better: float
    alike: float
    worse: float
    chance: float


@dataclass(frozen=True)
class Race:
    """Says which pair runs the next fresh fold, when that is enough, and who wins.

    It keeps no state: it gets all runs each time, with those of the search, so a race that was interrupted goes on.

    Attributes:
        entrants: the candidates that the search trained to their end, by number.
        variances: how widely candidates and folds scatter.
        rules: when it ends.
        finalists: the numbers of those that run and may win; all, where none is named. See `finalists`.
        temperature: for the chances that it states; see `Posterior.chance`.
    """

    entrants: Sequence[Entrant]
    variances: Variances
    rules: Rules = field(default_factory=Rules)
    finalists: Collection[int] = ()
    temperature: float = 1.0

    @property
    def _among(self) -> Collection[int]:
        return self.finalists or range(len(self.entrants))

    def posterior(self, runs: Sequence[Run]) -> Posterior:
        """The posterior after these runs."""
        variances = self.variances.seen(runs)
        between = [variances.between if one.between is None else one.between for one in self.entrants]
        return Posterior.of(runs, [one.prior for one in self.entrants], variances, between)

    def turn(self, runs: Sequence[Run], may_run: Callable[[int], Sequence[int]]) -> Turn | None:
        """What runs next; None where the race is over.

        A candidate that becomes challenger catches up first: it runs alone on a block that the other has run.

        Args:
            runs: all so far.
            may_run: gives the fresh blocks that a candidate can run, in the order to run them.
        """
        found, rules = self.posterior(runs), self.rules
        leader, *rest = sorted(self._among, key=lambda i: -found.mean[i])
        chances = found.chances(leader)
        hoping = [i for i in rest if found.chance(leader, i, by=rules.behind) < rules.hopeless]
        hoping.sort(key=lambda i: -chances[i])
        if not hoping or self._decided(found, leader, hoping):
            return None
        ran = {(run.candidate, run.block) for run in runs}
        for challenger in hoping:
            if turn := _shared(leader, challenger, ran, may_run):
                return turn
        return None

    def _decided(self, found: Posterior, leader: int, hoping: Sequence[int]) -> bool:
        """Whether more folds would be useless: the leader is better, or as good, or would stay ahead in any case."""
        rules, challenger = self.rules, hoping[0]
        within = found.chance(leader, challenger, by=-rules.rope) - found.chance(leader, challenger, by=rules.rope)
        sure = found.chance(leader, challenger) >= rules.sure
        return sure or within >= rules.alike or all(found.chance_to_stay(leader, i) >= rules.settled for i in hoping)

    def verdict(self, runs: Sequence[Run], winner: int | None = None) -> Verdict:
        """Who wins after these runs, and how sure it is that no other default is better.

        Args:
            runs: all of them.
            winner: if it was chosen in another way; else the highest mean wins, and a tie goes to a default or to the
                cheaper.
        """
        found, entrants = self.posterior(runs), self.entrants
        leader = max(self._among, key=lambda i: (found.mean[i], -entrants[i].cost))
        if winner is None:
            tied = [i for i in self._among if found.mean[i] >= found.mean[leader] - self.rules.tie]
            winner = min(tied, key=lambda i: (not entrants[i].default, entrants[i].cost, -found.mean[i]))
        defaults = [i for i, entrant in enumerate(entrants) if entrant.default and i != winner]
        if not defaults:
            return Verdict(winner, leader, None, *[math.nan] * 6)
        rival = max(defaults, key=lambda i: found.mean[i])
        above, not_below, chance = (
            found.chance(winner, rival, by=by, temperature=self.temperature)
            for by in (self.rules.rope, -self.rules.rope, 0.0)
        )
        lead = found.difference(winner, rival)
        return Verdict(winner, leader, rival, *lead, above, not_below - above, 1 - not_below, chance)


def _shared(
    leader: int, challenger: int, ran: Collection[tuple[int, int]], may_run: Callable[[int], Sequence[int]]
) -> Turn | None:
    """The next block for both: one that either has run already, else the first that both can run."""
    lacks = {i: [block for block in may_run(i) if (i, block) not in ran] for i in (challenger, leader)}
    for one, other in ((challenger, leader), (leader, challenger)):
        for block in lacks[one]:
            if (other, block) in ran:
                return Turn(block, (one,))
    both = set(lacks[challenger])
    return next((Turn(block, (leader, challenger)) for block in lacks[leader] if block in both), None)


def finalists(
    found: Posterior, entrants: Sequence[Entrant], always: Collection[int] = (), leaders: int = 3
) -> list[int]:
    """Who runs in the race: the leaders, of at least two methods where there are two, and the defaults to beat.

    Args:
        found: the posterior after the search.
        entrants: the candidates it is about.
        always: numbers of those that run in any case, such as the default that is best on recorded tasks.
        leaders: how many of the best run.
    """
    ranked = [int(i) for i in np.argsort(-found.mean, kind="stable")]
    chosen = ranked[:leaders]
    others = [i for i in ranked if entrants[i].method != entrants[ranked[0]].method]
    if others and others[0] not in chosen and leaders > 1:
        chosen[-1] = others[0]
    defaults = [i for i in ranked if entrants[i].default]
    return list(dict.fromkeys([*chosen, *defaults[:1], *always]))
