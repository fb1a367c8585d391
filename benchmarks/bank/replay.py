"""A study replayed on the recorded curves of one cell: what it would have tried, stopped and chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from policies import SHORT
from trials import Search

from autopeft.search.posterior import Posterior, Run
from autopeft.search.race import Entrant, Race, Rules, Verdict, finalists
from autopeft.search.standing import usual, variances_after

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cells import Cell
    from constants import Constants
    from policies import Policy

FEWEST = 0.9
"""A repeat serves for a search if it was recorded of so large a share of the most candidates that one has."""


@dataclass
class Trace:
    """What became of a replayed study; candidates by their place in the cell.

    Attributes:
        tried: in order.
        complete: those trained to their end.
        winner: whoever it chose.
        verdict: how sure it was, of places among `complete`.
        rival: the best default beside the winner; None where there is none.
        rows: that the search trained on, all folds.
        rows_race: the same of the race.
        rows_full: what all that was tried would have taken, trained to the end.
        lost: how far the best that was completed is below the best that was tried, by the folds of the search.
        path: rows so far, and who would have been chosen then.
        race_runs: folds that the race ran.
    """

    tried: list[int]
    complete: list[int]
    winner: int
    verdict: Verdict
    rival: int | None
    rows: float
    rows_race: float
    rows_full: float
    lost: float
    path: list[tuple[float, int]]
    race_runs: int


class Shipped(Race):
    """The package's race: its variances are estimated anew after every run (`autopeft.search.standing`)."""

    def posterior(self, runs: Sequence[Run]) -> Posterior:
        """The posterior after these runs."""
        known = variances_after(runs, self.entrants, self.variances)
        return Race(self.entrants, replace(known, degrees=math.inf)).posterior(runs)


def replay(cell: Cell, policy: Policy, constants: Constants, seed: int) -> tuple[Trace, Search]:
    """One study of a policy.

    Which repeat has its folds, which are left for the race, the order and the draws all come from the seed.
    """
    generator = np.random.default_rng(seed)
    recorded = ~np.isnan(cell.end).any(axis=2)  # of a candidate, all folds of a repeat
    enough = np.flatnonzero(recorded.sum(axis=0) >= FEWEST * recorded.sum(axis=0).max())
    repeat = int(generator.choice(enough))
    pool = pool_of(cell, policy, constants, recorded[:, repeat], generator)
    comparator = comparator_of(cell, constants, recorded[:, repeat])
    order = started(cell, policy, constants, pool, comparator, generator)[: policy.trials]
    search = Search(cell, repeat, constants, comparator, early=policy.early)
    policy.pruner.run(search, order)
    return _chosen(cell, policy, search, order, repeat, generator), search


def pool_of(
    cell: Cell, policy: Policy, constants: Constants, recorded: np.ndarray, generator: np.random.Generator
) -> list[int]:
    """A candidate of each configuration: the one of the length that the policy wants."""
    found = []
    for places in cell.places.values():
        there = places[recorded[places]]
        if not len(there):
            continue
        if policy.length == "drawn":
            found.append(int(generator.choice(there)))
            continue
        wanted = {"short": SHORT, "longest": math.inf, "advised": constants.length_of(str(cell.method[there[0]]))}
        length = min(wanted[policy.length], cell.length[there].max())
        found.append(int(there[np.argmin(np.abs(np.log(cell.length[there] / length)))]))
    return found


def comparator_of(cell: Cell, constants: Constants, recorded: np.ndarray) -> int:
    """The default that is best on other groups, at its length; where it was not recorded, the default nearest to it."""
    there = np.flatnonzero(recorded & cell.default)
    config, length = constants.comparator
    far = np.abs(np.log(cell.length[there] / length)) + 100.0 * (cell.config[there] != config)
    return int(there[np.argmin(far)])


def started(
    cell: Cell,
    policy: Policy,
    constants: Constants,
    pool: Sequence[int],
    comparator: int,
    generator: np.random.Generator,
) -> list[int]:
    """The pool in the order in which the policy tries it, the comparator in the place of its configuration."""
    if policy.start == "comparator":
        return [comparator]
    pool = [comparator if cell.config[i] == cell.config[comparator] and policy.length == "advised" else i for i in pool]
    drawn = [pool[i] for i in generator.permutation(len(pool))]
    if policy.start in ("random", "all"):
        return drawn
    rank = {origin: place for place, origin in enumerate(("near", "wide"))}
    if policy.start == "defaults":
        return sorted(drawn, key=lambda i: (not cell.default[i], rank.get(cell.origin[i], 1)))
    known = {config: place for place, config in enumerate(constants.portfolio)}
    return sorted(drawn, key=lambda i: (known.get(cell.config[i], len(known)), rank.get(cell.origin[i], 1)))


def _chosen(
    cell: Cell, policy: Policy, search: Search, order: list[int], repeat: int, generator: np.random.Generator
) -> Trace:
    """The choice among those that completed, after a race where the policy has one."""
    done = search.complete
    priors = _priors(cell, policy, search, done)
    entrants = [
        Entrant(str(cell.method[i]), bool(cell.default[i]), float(cell.cost[i]), *prior)
        for i, prior in zip(done, priors, strict=True)
    ]
    runs = [
        Run(n, fold, float(search.ends[i, fold])) for n, i in enumerate(done) for fold in range(search.ends.shape[1])
    ]
    constants = search.constants
    validated = search.size / (search.ends.shape[1] - 1)
    shipped = policy.choice == "shipped"
    variances = usual(round(validated)) if shipped else constants.variances
    race = (Shipped if shipped else Race)(
        entrants, variances, policy.race or Rules(), range(len(done)), constants.temperature
    )
    spent = 0.0
    if policy.race and len(done) > 1:
        always = [n for n, i in enumerate(done) if i == search.comparator]
        race = replace(race, finalists=finalists(race.posterior(runs), entrants, always))
        rows = policy.share / (1 - policy.share) * float(search.trained.sum())
        runs, spent = raced(race, runs, _fresh(cell, done, repeat, search.ends.shape[1], generator), cell, done, rows)
    verdict = race.verdict(runs, done.index(search.best()) if policy.choice == "mean" else None)
    return Trace(
        tried=order,
        complete=done,
        winner=done[verdict.winner],
        verdict=verdict,
        rival=None if verdict.rival is None else done[verdict.rival],
        rows=float(search.trained.sum()),
        rows_race=spent,
        rows_full=float(search.end_rows[order].sum()),
        lost=float(search.end[order].max() - search.end[done].max()),
        path=search.path,
        race_runs=len(runs) - len(done) * search.ends.shape[1],
    )


def _fresh(
    cell: Cell, done: Sequence[int], repeat: int, folds: int, generator: np.random.Generator
) -> dict[int, dict[int, float]]:
    """By place among those that completed: its scores on the folds of other repeats, by block; repeats drawn anew."""
    others = [int(i) for i in generator.permutation(cell.end.shape[1]) if i != repeat]
    return {
        n: {
            folds * (1 + order) + fold: float(cell.end[i, other, fold])
            for order, other in enumerate(others)
            for fold in range(folds)
            if not np.isnan(cell.end[i, other, fold])
        }
        for n, i in enumerate(done)
    }


def raced(
    race: Race, runs: list[Run], fresh: dict[int, dict[int, float]], cell: Cell, done: Sequence[int], rows: float
) -> tuple[list[Run], float]:
    """All runs after the race, and the rows that it took."""
    spent = 0.0
    while turn := race.turn(runs, lambda n: list(fresh[n])):
        cost = sum(float(cell.end_rows[done[n]]) for n in turn.candidates)
        if spent + cost > rows:
            break
        spent += cost
        runs = [*runs, *(Run(n, turn.block, fresh[n][turn.block]) for n in turn.candidates)]
    return runs, spent


RIDGE = 1.0
"""Of the regression on configurations."""


def _priors(cell: Cell, policy: Policy, search: Search, done: Sequence[int]) -> list[tuple[float, float | None]]:
    """What is expected of each that completed, before its folds are looked at, with its variance; None: as of all.

    The surrogate is a regression of the scores of those that completed on method, rate and being a default.
    """
    if policy.choice == "shipped":
        return [(search.constants.by_method.get(str(cell.method[i]), 0.0), None) for i in done]
    known = [search.constants.expected(str(cell.config[i]), str(cell.method[i])) for i in done]
    if policy.choice != "surrogate" or len(done) < 2:
        return known
    rate = np.log(np.maximum(cell.lr[list(done)], 1e-12))
    rate = (rate - rate.mean()) / max(rate.std(), 1e-9)
    methods = cell.method[list(done)][:, None] == np.unique(cell.method[list(done)])
    features = np.column_stack([methods, rate, rate**2, cell.default[list(done)]]).astype(float)
    scores = search.end[list(done)] - search.end[list(done)].mean()
    fitted = features @ np.linalg.solve(features.T @ features + RIDGE * np.eye(features.shape[1]), features.T @ scores)
    return [(float(one), between) for one, (_, between) in zip(fitted, known, strict=True)]
