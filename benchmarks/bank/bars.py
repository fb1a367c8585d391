"""What replays show of a policy: gains, what is never worse, and calibration, over groups of tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, stdtr

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 2000
"""Of groups, with replacement, for an interval."""

POINT = 0.01
"""A point of a score."""

TOLERATED, CATASTROPHE, ALIKE = 0.5 * POINT, 5 * POINT, 0.5 * POINT

SLOPES = np.linspace(0, 3, 301)

TEMPERATURES, USUAL = np.geomspace(0.25, 8, 71), 0.7
"""What is tried, and how far its logarithm usually is from zero: a few cells show too little to believe more."""


@dataclass(frozen=True)
class Interval:
    """A mean over cells, and what 95% of the draws of groups lie between."""

    mean: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.mean:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def draws_of(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row the number of its group, and how often each group comes in each draw, [draws, groups]."""
    names, place = np.unique(groups, return_inverse=True)
    count = len(names)
    return place, np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), DRAWS)


def mean_over_groups(values: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None) -> Interval:
    """The weighted mean of values, a row each, with an interval over groups; NaN counts for nothing."""
    there = ~np.isnan(values)
    if not there.any():
        return Interval(math.nan, math.nan, math.nan)
    values, weights = values[there], np.ones(there.sum()) if weights is None else weights[there]
    place, drawn = draws_of(groups[there])
    sums, counts = np.bincount(place, weights * values), np.bincount(place, weights)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), [0.025, 0.975])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


@dataclass(frozen=True)
class NeverWorse:
    """The four parts of "never worse", of deficits D = test(comparator) - test(winner) by cell.

    Attributes:
        rejected: cells that reject D ≤ 0.5 points at 5%, all cells taken together (max-t).
        deficit: its mean over cells; the bar is that the upper end is below 0.
        new_task: chance that D is more than 0.5 points on a new group, by a normal model over groups.
        catastrophes: share of single replays with a deficit above 5 points.
    """

    rejected: list[str]
    deficit: Interval
    new_task: float
    catastrophes: float


def never_worse(cells: pd.DataFrame, catastrophes: float) -> NeverWorse:
    """Of one policy.

    Args:
        cells: a row a cell, with `cell`, `group`, the mean `gain` of its replays and its standard `error`.
        catastrophes: as above.
    """
    deficit, error = -cells.gain.to_numpy(), np.maximum(cells.error.to_numpy(), 1e-9)
    largest = np.random.default_rng(0).standard_normal((20_000, len(cells))).max(axis=1)
    rejected = (deficit - TOLERATED) / error > np.quantile(largest, 0.95)
    return NeverWorse(
        cells.cell[rejected].tolist(),
        mean_over_groups(deficit, cells.group.to_numpy()),
        chance_on_a_new_group(cells.assign(deficit=deficit)),
        catastrophes,
    )


def chance_on_a_new_group(cells: pd.DataFrame, by: float = TOLERATED) -> float:
    """That a new group's deficit is larger than so much: D_g ~ N(δ, τ²), by moments, t with groups - 1 degrees."""
    groups = cells.groupby("group")
    means, noise = groups.deficit.mean().to_numpy(), (groups.error.mean() ** 2 / groups.size()).to_numpy()
    count = len(means)
    if count < 2:
        return math.nan
    spread = float(np.var(means, ddof=1))  # the true one and what each group's mean is off by
    between = max(spread - float(noise.mean()), 0.0)
    deviation = max(math.sqrt(between + spread / count), 1e-9)
    return float(stdtr(count - 1, (means.mean() - by) / deviation))


def temperature(claims: pd.DataFrame) -> float:
    """What the deviation of stated leads has to be multiplied by, so that the chances hold: the likeliest one.

    Of `lead`, `deviation`, the lead that test rows show (`seen`) and its noise (`noise`); each cell counts once.
    """
    if claims.empty:
        return 1.0
    lead, deviation, sign = claims.lead.to_numpy(), claims.deviation.to_numpy(), np.sign(claims.seen.to_numpy())
    weight = 1 / claims.groupby("cell").cell.transform("size").to_numpy()
    wide = np.sqrt((TEMPERATURES[:, None] * deviation) ** 2 + claims.noise.to_numpy())
    likelihood = np.log(np.clip(ndtr(sign * lead / wide), 1e-12, 1))
    return float(TEMPERATURES[np.argmax(likelihood @ weight - 0.5 * (np.log(TEMPERATURES) / USUAL) ** 2)])


@dataclass(frozen=True)
class Calibration:
    """Whether stated chances hold.

    Attributes:
        slope: of what is observed against what is stated, on the scale of the normal distribution; 1 is right, below it
            chances are too sure.
        sure: share of claims of at least 80% that hold.
        brier: mean squared distance of chances to what came true.
        bins: by tenths: chance stated, share that holds, claims.
    """

    slope: Interval
    sure: Interval
    brier: float
    bins: list[tuple[float, float, int]]


def calibration(claims: pd.DataFrame) -> Calibration:
    """Of claims as in `temperature`, at their temperature; chances are of the observed sign, the test noise inside."""
    sign = claims.seen.to_numpy() > 0
    wide = np.sqrt((claims.temperature.to_numpy() * claims.deviation.to_numpy()) ** 2 + claims.noise.to_numpy())
    score = claims.lead.to_numpy() / wide
    weight = 1 / claims.groupby("cell").cell.transform("size").to_numpy()
    groups = claims.group.to_numpy()
    place, drawn = draws_of(groups)
    likelihood = weight * np.log(np.clip(ndtr(SLOPES[:, None] * np.where(sign, score, -score)), 1e-12, 1))
    by_group = np.array([np.bincount(place, row) for row in likelihood])
    low, high = np.quantile(SLOPES[np.argmax(by_group @ drawn.T, axis=0)], [0.025, 0.975])
    slope = Interval(float(SLOPES[np.argmax(likelihood.sum(axis=1))]), float(low), float(high))
    chance = ndtr(score)
    place = np.minimum((chance * 10).astype(int), 9)
    bins = [
        (
            float(np.average(chance[some], weights=weight[some])),
            float(np.average(sign[some], weights=weight[some])),
            int(some.sum()),
        )
        for some in (place == number for number in range(10))
        if some.any()
    ]
    sure = np.where(chance >= 0.8, sign.astype(float), np.nan)
    return Calibration(
        slope,
        mean_over_groups(sure, groups, weight),
        float(np.average((chance - sign) ** 2, weights=weight)),
        bins,
    )
