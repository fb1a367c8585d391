"""What did best on recorded tasks: a few candidates to try first, chosen by the number of rows and the kind of task.

`benchmarks/bank/portfolio.py` writes `portfolio.json` from recorded learning curves; without it nothing is known
beforehand. Gains are in points of the metric on test rows, over the untuned default that is best on all tasks of about
that size.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from autopeft.common.params import Params

PATH = Path(__file__).with_name("portfolio.json")

OTHER_KIND = 0.3
"""Weight of a task of another kind, where one of the same kind has 1."""

FAR = 4.0
"""A task recorded on this many times more, or fewer, rows says little."""

MOST_ENTRIES = 6
"""At most this many entries: with some ten tasks, a further one would be fitted to noise."""

LEAST_GAIN = 0.1
"""Points that a further entry must add: a search cannot tell a smaller gain from none, and a trial costs more."""


class Cell(NamedTuple):
    """A recorded task at one size.

    Attributes:
        task, kind: names.
        group: name of the tasks that share texts, and count as one.
        rows: number that a fold trained on.
    """

    task: str
    group: str
    kind: str
    rows: int


class Size(NamedTuple):
    """What all tasks of about one size show.

    Attributes:
        rows: number that a fold trained on.
        default: the method whose untuned default is best there.
        steps: the length that suits it.
        gain, error: points by which the best entry of a portfolio was above that default, on groups of tasks that had
            no part in choosing it, and the standard error over groups. NaN where there is only one group.
        tasks, groups: how many.
    """

    rows: int
    default: str
    steps: int
    gain: float
    error: float
    tasks: int
    groups: int


@dataclass(frozen=True, eq=False)
class Entry:
    """A candidate at the length it was recorded at.

    Attributes:
        method: its name.
        default: whether it is the method's untuned default, at the length that suits each size.
        params: the method's own.
        training: the training dimensions except the length, which is in `steps`; the learning rate holds for it.
        steps: in each cell, [cells]; NaN where it was not recorded.
        gains: in each cell, shrunk towards the entry's mean as far as they are noise, [cells]; NaN as in `steps`.
    """

    method: str
    default: bool
    params: Params
    training: Params
    steps: np.ndarray
    gains: np.ndarray


class Expected(NamedTuple):
    """The gain of one entry over another on cells like a study's, and how many tasks and groups are behind it.

    `error` is the standard error over groups; NaN for a single group.
    """

    gain: float
    error: float
    tasks: int
    groups: int


@dataclass(frozen=True)
class Portfolio:
    """Entries with what they scored in each cell.

    Attributes:
        model: the base model that all was recorded on.
        cells: the recorded tasks.
        sizes: the fewest rows first.
        entries: defaults first.
    """

    model: str
    cells: tuple[Cell, ...]
    sizes: tuple[Size, ...]
    entries: tuple[Entry, ...]

    @classmethod
    def from_json(cls, text: str) -> Portfolio:
        """As `to_json` wrote it."""
        told = json.loads(text)
        cells = tuple(Cell(**cell) for cell in told["cells"])
        sizes = (
            Size(**{**size, **{name: _number(size[name]) for name in ("gain", "error")}}) for size in told["sizes"]
        )
        entries = (
            Entry(**{**entry, **{name: np.array(entry[name], float) for name in ("steps", "gains")}})
            for entry in told["entries"]
        )
        return cls(told["model"], cells, tuple(sizes), tuple(entries))

    def to_json(self) -> str:
        """A line for each cell, size and entry."""
        parts = {
            "cells": [cell._asdict() for cell in self.cells],
            "sizes": [{name: _plain(value, 2) for name, value in size._asdict().items()} for size in self.sizes],
            "entries": [
                {
                    **vars(entry),
                    "steps": [_plain(float(value), 0) for value in entry.steps],
                    "gains": [_plain(float(value), 2) for value in entry.gains],
                }
                for entry in self.entries
            ],
        }
        lists = [f'"{name}": [\n' + ",\n".join(map(json.dumps, several)) + "\n]" for name, several in parts.items()]
        return "{\n" + ",\n".join([f'"model": {json.dumps(self.model)}', *lists]) + "\n}\n"

    @functools.cached_property
    def groups(self) -> list[str]:
        """The group of each cell."""
        return [cell.group for cell in self.cells]

    def near(self, rows: int) -> np.ndarray:
        """Whether each cell has about as many rows, [cells]."""
        return np.array([max(cell.rows / rows, rows / cell.rows) <= FAR for cell in self.cells])

    def weights(self, rows: int, kind: str) -> np.ndarray:
        """How much each cell says about a study whose folds train on this many rows, [cells].

        Cells that are not near weigh nothing; where none is near, all weigh the same.
        """
        if not (near := self.near(rows)).any():
            return np.ones(len(self.cells))
        weights = np.array([nearness(cell.rows, cell.kind, rows, kind) for cell in self.cells])
        return np.where(near, weights, 0.0)

    def size(self, rows: int) -> Size:
        """The recorded size nearest to this many rows."""
        return min(self.sizes, key=lambda size: abs(math.log(size.rows / rows)))

    def defaults(self, rows: int, methods: Collection[str]) -> list[Entry]:
        """These methods' defaults that were recorded near that size, the best first.

        The first one is the best fixed default: best over all tasks of the size, whatever their kind.
        """
        size = self.size(rows)
        alike = np.array([self.size(cell.rows) == size for cell in self.cells])
        means = {
            entry.method: float(np.nanmean(entry.gains[alike]))
            for entry in self.entries
            if entry.default and entry.method in methods and not np.isnan(entry.gains[alike]).all()
        }
        found = [entry for entry in self.entries if entry.default and entry.method in means]
        return sorted(found, key=lambda entry: (entry.method != size.default, -means[entry.method]))

    def order(self, rows: int, kind: str, methods: Collection[str]) -> list[Entry]:
        """What to try first of these methods: the best fixed default, then each time the entry that adds most.

        Empty where no default of these methods was recorded.
        """
        if not (defaults := self.defaults(rows, methods)):
            return []
        entries = [entry for entry in self.entries if entry.method in methods]
        table = np.array([entry.gains for entry in entries])
        weights, place = self.weights(rows, kind), entries.index(defaults[0])
        chosen = greedy(table, weights, self.groups, place, least=LEAST_GAIN)
        return [entries[place] for place in chosen]

    def steps(self, entry: Entry, rows: int) -> float:
        """The length advised for an entry with this many rows: between those of the two nearest sizes."""
        of_size = {
            size.rows: np.mean(np.log(steps))
            for size in self.sizes
            if len(
                steps := [
                    one
                    for one, cell in zip(entry.steps, self.cells, strict=True)
                    if not math.isnan(one) and self.size(cell.rows) == size
                ]
            )
        }
        return float(np.exp(np.interp(math.log(rows), np.log([*of_size]), [*of_size.values()])))

    def expected(self, entry: Entry, beside: Entry, rows: int, kind: str) -> Expected:
        """How far one entry was above another in cells like a study's; in all cells where none is near."""
        weights, gains = self.weights(rows, kind), entry.gains - beside.gains
        there = ~np.isnan(gains) & (weights > 0)
        if not there.any():
            return Expected(math.nan, math.nan, 0, 0)
        groups = [group for group, one in zip(self.groups, there, strict=True) if one]
        tasks = {cell.task for cell, one in zip(self.cells, there, strict=True) if one}
        mean, error = by_group(gains[there], weights[there], groups)
        return Expected(mean, error, len(tasks), len(set(groups)))

    def expected_of_methods(self, rows: int, kind: str, methods: Collection[str]) -> dict[str, float]:
        """How far above the best fixed default each method's own is expected to be, in points.

        A mean gain over groups is moved towards none by as much as it may be chance: of a gain g with the standard
        error e, the share g² / (g² + e²) is left. Methods that were recorded on a single group are left out.
        """
        defaults = self.defaults(rows, methods)
        told = {one.method: self.expected(one, defaults[0], rows, kind) for one in defaults[1:]}
        return {
            method: one.gain**3 / (one.gain**2 + one.error**2)
            for method, one in told.items()
            if not math.isnan(one.error) and one.gain
        }


def _number(told: float | None) -> float:
    return math.nan if told is None else told


def _plain(value: float | str, digits: int) -> float | str | None:
    """The value for JSON: without NaN, and without digits that mean nothing."""
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else (round(value, digits) if digits else round(value))


def nearness(recorded: float, recorded_kind: str, rows: float, kind: str) -> float:
    """How much a recorded task says about one of this kind with this many rows; 1 for one just like it.

    A normal density over doublings of the rows: a fixed form, as with some ten groups nothing finer could be fitted.
    """
    return math.exp(-0.5 * math.log2(recorded / rows) ** 2) * (1.0 if recorded_kind == kind else OTHER_KIND)


def by_group(values: np.ndarray, weights: np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    """The weighted mean of the groups' own weighted means, and its standard error; NaN for a single group.

    A group weighs as much as its nearest cell, so that one with several sizes or tasks counts no more than another.

    Args:
        values: [cells].
        weights: [cells], some of them above zero.
        groups: the group of each cell.
    """
    names = sorted({group for group, weight in zip(groups, weights, strict=True) if weight > 0})
    within = [np.array([group == name for group in groups]) for name in names]
    means = np.array([np.average(values[own], weights=weights[own]) for own in within])
    heavy = np.array([weights[own].max() for own in within])
    mean = float(np.average(means, weights=heavy))
    count = heavy.sum() ** 2 / (heavy**2).sum()  # Kish's effective number of groups
    if len(names) == 1 or count <= 1:
        return mean, math.nan
    return mean, math.sqrt(float(np.average((means - mean) ** 2, weights=heavy)) / (count - 1))


def greedy(
    table: np.ndarray,
    weights: np.ndarray,
    groups: Sequence[str],
    first: int,
    *,
    most: int = MOST_ENTRIES,
    least: float = 0.0,
) -> list[int]:
    """Rows of a table, each the one that adds most to the best of those before it; at most `most`.

    Distances count, as in Auto-sklearn 2.0 (Feurer et al. 2022, arXiv:2007.04074), not ranks, which exaggerate ties.
    It ends where the next row, chosen without a group, gains less on that group than the standard error over groups, or
    than `least`.

    Args:
        table: scores, [candidates, cells]; NaN where not recorded.
        weights: of cells, some of them above zero.
        groups: of cells.
        first: the row to begin with.
        most: how many rows to choose at most.
        least: what a further row must add.
    """
    scores, members = np.where(np.isnan(table), -np.inf, table), np.array(groups)
    chosen, best = [first], scores[first]
    while len(chosen) < most:
        gains = np.zeros_like(scores)
        known = np.isfinite(best)  # no gain is known in a cell where nothing chosen was recorded
        gains[:, known] = np.maximum(scores[:, known] - best[known], 0)
        left_out = np.zeros(len(members))
        for group in sorted(set(groups)):
            own = members == group
            left_out[own] = gains[int(np.argmax(gains[:, ~own] @ weights[~own])), own]
        mean, error = by_group(left_out, weights, groups)
        place = int(np.argmax(gains @ weights))
        if not mean > max(error, least) or place in chosen or math.isnan(error):
            break
        chosen.append(place)
        best = np.maximum(best, scores[place])
    return chosen


def read() -> Portfolio | None:
    """The portfolio that comes with the package; None where it has none."""
    return _read(PATH)


@functools.cache
def _read(path: Path) -> Portfolio | None:
    return Portfolio.from_json(path.read_text(encoding="utf-8")) if path.is_file() else None
