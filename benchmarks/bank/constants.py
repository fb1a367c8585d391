"""What a study may know beforehand of its task: taken from the cells of other groups, never from its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from effects import mean_of, residual_squares, shrunk, two_way

from autopeft.search.portfolio import LEAST_GAIN, Entry, Portfolio, Size, greedy, nearness
from autopeft.search.portfolio import Cell as Recorded
from autopeft.search.posterior import LEAST, Variances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cells import Cell

FRACTIONS = (1 / 24, 1 / 16, 1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 3, 1 / 2)
"""Of a candidate's length: where it is recorded how well a rung tells the end."""

DEGREES = 12
"""Of freedom that the recorded variance of folds counts for beside a study's own residuals."""

ROBUST = 1.4826
"""Times the median distance to the median: the standard deviation, were it normal. Failures hardly count."""


@dataclass(frozen=True)
class Slope:
    """How a lead over the comparator at a rung tells that at the end: a + b · lead, with a variance."""

    intercept: float
    slope: float
    variance: float


@dataclass(frozen=True)
class Constants:
    """What other groups advise for one cell.

    Attributes:
        comparator: the default, and its length, that is best on the others: the best single fixed default.
        lengths: by method, the length that its default does best at.
        portfolio: configurations to try first, the comparator's at the head.
        known: of the defaults and the portfolio, what to expect beside the comparator, by configuration.
        drawn: the same of any other, by method.
        by_method: what the package itself expects of every candidate of a method, as its portfolio tells it.
        between_known: variance of one that is known around that, which is what a task has of its own.
        variances: of candidates that are not known, and of folds.
        slopes: by fraction of the length, for pruning at a stated risk.
        temperature: of stated chances.
    """

    comparator: tuple[str, float]
    lengths: Mapping[str, float]
    portfolio: Sequence[str]
    known: Mapping[str, float]
    drawn: Mapping[str, float]
    by_method: Mapping[str, float]
    between_known: float
    variances: Variances
    slopes: Mapping[float, Slope]
    temperature: float = 1.0

    def expected(self, config: str, method: str) -> tuple[float, float]:
        """Of a candidate beside the comparator, and the variance around that."""
        if config in self.known:
            return self.known[config], self.between_known
        return self.drawn.get(method, 0.0), self.variances.between

    def length_of(self, method: str) -> float:
        """Epochs that a method's candidates train."""
        return self.lengths.get(method, self.comparator[1])

    def slope_at(self, fraction: float) -> Slope | None:
        """How a rung at about this fraction tells the end; None where none was recorded."""
        nearest = min(self.slopes, key=lambda known: abs(math.log(known / fraction)), default=None)
        return None if nearest is None else self.slopes[nearest]


def fit(others: Sequence[Cell], size: int, kind: str) -> Constants:
    """From the cells of other groups, for a task of a kind and a size.

    What variances and priors say depends on how many rows there are, so they come from cells of the same size where two
    groups have one. What to try first comes from all, weighted by how near they are in rows and kind.

    Raises:
        ValueError: there is no other group, or none with a default.
    """
    if not any(cell.default.any() for cell in others):
        raise ValueError("Constants come from other groups, and none has a default. Record a second group.")
    alike = [cell for cell in others if cell.size == size]
    alike = alike if len({cell.group for cell in alike}) > 1 else list(others)
    weights = np.array([weight_of(cell, size, kind) for cell in others])
    comparator, lengths = _lengths(alike, np.array([weight_of(cell, size, kind) for cell in alike]))
    chosen = {cell.name: _at_advised(cell, lengths, comparator[1]) for cell in others}
    portfolio = _portfolio(others, weights, chosen, comparator[0])
    known, drawn, between_known, between = _priors(alike, chosen, comparator[0], portfolio)
    variances = Variances(between, *_folds(alike), DEGREES)
    slopes = _slopes(alike, comparator)
    by_method = _by_method(alike, chosen, comparator[0], size, kind)
    return Constants(comparator, lengths, portfolio, known, drawn, by_method, between_known, variances, slopes)


def weight_of(cell: Cell, size: int, kind: str) -> float:
    """How much a recorded cell says of one of this size and kind."""
    return nearness(cell.size, cell.kind, size, kind)


def table_of(cells: Sequence[Cell], chosen: Mapping[str, Mapping[str, int]]) -> tuple[list[str], np.ndarray]:
    """Names, and their true scores in each cell, [names, cells]."""
    names = sorted({name for cell in cells for name in chosen[cell.name]})
    rows = [[cell.truth[chosen[cell.name][n]] if n in chosen[cell.name] else np.nan for cell in cells] for n in names]
    return names, np.array(rows)


def _lengths(cells: Sequence[Cell], weights: np.ndarray) -> tuple[tuple[str, float], dict[str, float]]:
    """The best default with its length, and the best length of each method's default."""
    defaults = {
        cell.name: {f"{cell.config[i]} {cell.length[i]:g}": i for i in np.flatnonzero(cell.default)} for cell in cells
    }
    names, table = table_of(cells, defaults)
    effects = two_way(table, weights).row
    method = {cell.config[i]: cell.method[i] for cell in cells for i in np.flatnonzero(cell.default)}
    best: tuple[str, float] | None = None
    lengths: dict[str, float] = {}
    for place in np.argsort(-effects, kind="stable"):
        config, length = names[place].split(" ")
        best = best or (config, float(length))
        lengths.setdefault(method[config], float(length))
    assert best
    return best, lengths


def _at_advised(cell: Cell, lengths: Mapping[str, float], otherwise: float) -> dict[str, int]:
    """Of each configuration in a cell the candidate whose length is nearest to the advised one."""
    methods = dict(zip(cell.config, cell.method, strict=True))
    found = {str(config): cell.nearest(config, lengths.get(method, otherwise)) for config, method in methods.items()}
    return {config: place for config, place in found.items() if place is not None}


def _portfolio(
    cells: Sequence[Cell], weights: np.ndarray, chosen: Mapping[str, Mapping[str, int]], first: str
) -> list[str]:
    """Configurations to try first, by the package's own rule."""
    names, table = table_of(cells, chosen)
    table = shrunk(table, weights, float(np.mean([cell.test_noise for cell in cells])))
    groups = [cell.group for cell in cells]
    return [names[place] for place in greedy(table, weights, groups, names.index(first), least=LEAST_GAIN / 100)]


def _priors(
    cells: Sequence[Cell], chosen: Mapping[str, Mapping[str, int]], comparator: str, portfolio: Sequence[str]
) -> tuple[dict[str, float], dict[str, float], float, float]:
    """What to expect beside the comparator: of known configurations, and of others by method; the variances of both.

    Of a known one the effect over all cells is moved towards that of its like, by as much as it is noise: the best of
    several looks better than it is. What a task has of its own is left of its variance; of one that is not known, also
    how widely those of its method scatter. Medians throughout, as some fail.
    """
    names, table = table_of(cells, chosen)
    method = {str(cell.config[i]): str(cell.method[i]) for cell in cells for i in chosen[cell.name].values()}
    defaults = {str(cell.config[i]) for cell in cells for i in np.flatnonzero(cell.default)}
    found = two_way(table, np.ones(len(cells)))
    rest, groups = table - found.fitted, len({cell.group for cell in cells})
    shrinks = max(1 - 1 / len(cells), 0.5) * max(1 - 1 / len(names), 0.5)  # of residuals, which the effects have fitted
    noise = float(np.mean([cell.test_noise for cell in cells]))
    own = max(_robust(rest[~np.isnan(rest)]) / shrinks - noise, LEAST)
    effect = dict(zip(names, found.row, strict=True))
    of_draws = {
        name: [effect[n] for n in names if method[n] == name and n not in defaults] for name in set(method.values())
    }
    centre = float(np.median(found.row))
    drawn = {name: float(np.median(values)) for name, values in of_draws.items() if values}
    scatter = _robust(np.array([value - drawn[name] for name in drawn for value in of_draws[name]]))
    spread = float(np.var([effect[name] for name in names if name in defaults]))
    keep = spread / (spread + own / groups)
    known = {name: centre + keep * (effect[name] - centre) for name in names if name in defaults or name in portfolio}
    beside = known[comparator]
    return (
        {name: float(value - beside) for name, value in known.items()},
        {name: value - beside for name, value in drawn.items()},
        own,
        own + max(scatter - own / groups, 0.0),
    )


def _by_method(
    cells: Sequence[Cell], chosen: Mapping[str, Mapping[str, int]], comparator: str, size: int, kind: str
) -> dict[str, float]:
    """What a portfolio of these cells' defaults would have the package expect of each method."""
    names, table = table_of(cells, chosen)
    gains = 100 * (table - table[names.index(comparator)])
    origin = {str(cell.config[i]): str(cell.method[i]) for cell in cells for i in np.flatnonzero(cell.default)}
    entries = [
        Entry(origin[name], True, {}, {}, np.full(len(cells), np.nan), gains[place])
        for place, name in enumerate(names)
        if name in origin
    ]
    recorded = [Recorded(cell.task, cell.group, cell.kind, cell.size) for cell in cells]
    at_once = Size(size, origin[comparator], 0, math.nan, math.nan, 0, 0)
    known = Portfolio("", tuple(recorded), (at_once,), tuple(entries))
    found = known.expected_of_methods(size, kind, set(origin.values()))
    return {method: points / 100 for method, points in found.items()}


def _robust(values: np.ndarray) -> float:
    """A variance for which failures hardly count."""
    return float((ROBUST * np.median(np.abs(values - np.median(values)))) ** 2) if len(values) else 0.0


def _folds(cells: Sequence[Cell]) -> tuple[float, float]:
    """Variance of folds, and of the gap in shares of it.

    Of differences between candidates, that of a mean over J folds to the test scores has twice the variance
    folds · (1/J + floor) + what the test rows leave; so the spread over candidates has once that.
    """
    squares, degrees, gaps = 0.0, 0.0, []
    for cell in cells:
        own, its_degrees = residual_squares(cell.end.reshape(len(cell.end), -1))
        squares += own
        degrees += max(its_degrees, 0)
    folds = max(float(squares / max(degrees, 1)), LEAST)
    for cell in cells:
        apart = mean_of(cell.end, (1, 2)) - cell.truth
        runs = (~np.isnan(cell.end)).sum(axis=(1, 2))
        near = np.abs(apart - np.nanmedian(apart)) < 6 * ROBUST * np.nanmedian(np.abs(apart - np.nanmedian(apart)))
        if near.sum() > 2:
            gaps.append((np.var(apart[near], ddof=1) - cell.test_noise) / folds - np.mean(1 / runs[near]))
    return folds, max(float(np.mean(gaps)) if gaps else 0.0, 0.0)


def _slopes(cells: Sequence[Cell], comparator: tuple[str, float]) -> dict[float, Slope]:
    """At each fraction of the length, over the candidates of all cells that have a point there and the comparator."""
    found = {}
    for fraction in FRACTIONS:
        early, late = [], []
        for cell in cells:
            beside = cell.nearest(*comparator)
            if beside is None:
                continue
            rung = rung_scores(cell, fraction * cell.length)
            ends = mean_of(cell.end, (1, 2))
            there = np.flatnonzero(~np.isnan(rung - rung[beside] + ends - ends[beside]))
            there = there[there != beside]
            early += list(rung[there] - rung[beside])
            late += list(ends[there] - ends[beside])
        if len(early) > 3 and np.ptp(early) > 0:
            slope, intercept = np.polyfit(early, late, 1)
            rest = np.array(late) - intercept - slope * np.array(early)
            found[fraction] = Slope(float(intercept), float(slope), max(float(rest @ rest) / (len(rest) - 2), LEAST))
    return found


def rung_scores(cell: Cell, epochs: np.ndarray) -> np.ndarray:
    """Mean score of each candidate at its last point at about so many epochs or before; NaN where it has none."""
    place = points_at(cell.epochs, cell.length, epochs)
    means = mean_of(cell.score, (1, 2))
    return np.where(place >= 0, means[np.arange(len(means)), place], np.nan)


NEAR = 1.1
"""A point counts as recorded at some epochs if it lies at no more than so many times as many."""


def points_at(recorded: np.ndarray, lengths: np.ndarray, epochs: np.ndarray | float) -> np.ndarray:
    """Of each candidate the last point at about so many epochs or before, short of its end; -1 where there is none."""
    bound = np.minimum(NEAR * np.asarray(epochs), lengths / NEAR)
    return (recorded <= bound[:, None]).sum(axis=1) - 1
