"""What to try first, from the bank: writes the portfolio that comes with the package.

    python benchmarks/bank/portfolio.py BANK [--schedule wsd] [--out autopeft/search/portfolio.json]

A configuration at each length it was recorded at is a candidate of its own; lengths are told in steps, so that those of
tasks of different sizes are the same one where they are near enough. Scores are on all test rows; of each cell they are
moved towards what the candidate does in others of that size first, as far as those of its length are noise. What a
start brings is told of groups that had no part in its choice, cross-fitted: the best entry on one half of the test rows
is scored on the other half.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from cells import Bank, Cell, commonest, plain
from effects import shrunk, two_way

from autopeft.common.files import whole
from autopeft.methods.training_space import TRAINING_SPACE, Hyperparameters
from autopeft.search.portfolio import PATH, Entry, Portfolio, Size, by_group
from autopeft.search.portfolio import Cell as RecordedCell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

POINT = 0.01

NEAR = math.log2(1.5)
"""Doublings by which steps may differ to be the same length."""

ALIKE = 1.5
"""Times as many rows: cells are of one size up to that."""


class Candidate(NamedTuple):
    """A configuration at a length: `doublings` is the binary logarithm of its steps, in halves."""

    config: str
    doublings: float


@dataclass(frozen=True)
class Recorded:
    """The bank as it is asked here.

    Attributes:
        cells: all.
        configs: their table, by config.
        places: of each candidate, its place in the cells where it was recorded, by name.
        model: that was trained.
    """

    cells: list[Cell]
    configs: pd.DataFrame
    places: dict[Candidate, dict[str, int]]
    model: str

    @classmethod
    def read(cls, folder: Path, schedule: str | None = None) -> Recorded:
        """From the four tables."""
        bank = Bank.read(folder, schedule=schedule)
        configs = plain(folder / "configs.parquet").set_index("config")
        cells = sorted(bank.cells.values(), key=lambda cell: (cell.size, cell.task))
        return cls(cells, configs, _places(cells, configs), commonest(plain(folder / "runs.parquet").model))

    def steps(self, cell: Cell, place: int) -> int:
        """Of a candidate of a cell."""
        return round(cell.length[place] * math.ceil(cell.size / int(self.configs.batch[cell.config[place]])))

    def at(self, cell: Cell, config: str, steps: float) -> int | None:
        """The candidate of a cell that a configuration at a length is; None where it has none of about that length."""
        there = {int(i): math.log2(self.steps(cell, i)) for i in cell.places.get(config, ())}
        return nearest(there, math.log2(steps))


def _places(cells: Sequence[Cell], configs: pd.DataFrame) -> dict[Candidate, dict[str, int]]:
    found: dict[Candidate, dict[str, int]] = {}
    for config in sorted({str(name) for cell in cells for name in cell.config}):
        logs = {
            cell.name: {
                int(i): math.log2(cell.length[i] * math.ceil(cell.size / int(configs.batch[config])))
                for i in cell.places.get(config, ())
            }
            for cell in cells
        }
        seen: list[dict[str, int]] = []
        for point in sorted({round(2 * value) / 2 for own in logs.values() for value in own.values()}):
            near = {name: place for name, own in logs.items() if (place := nearest(own, point)) is not None}
            if near not in seen:
                seen.append(near)
                found[Candidate(config, point)] = near
    return found


def nearest(doublings: Mapping[int, float], wanted: float) -> int | None:
    """Of candidates with such steps the one that is nearest to a length; None where none is near."""
    place = min(doublings, key=lambda i: abs(doublings[i] - wanted), default=None)
    return place if place is not None and abs(doublings[place] - wanted) <= NEAR else None


def size_of(cell: Cell, sizes: Sequence[int]) -> int:
    """The size that a cell is of: its rows are at most a half more or less than that."""
    return min(sizes, key=lambda size: abs(math.log(size / cell.size)))


def sizes_of(cells: Sequence[Cell]) -> list[int]:
    """Rows of a fold, each size once: that of most cells of those that are alike."""
    found: list[list[int]] = []
    for size in sorted(cell.size for cell in cells):
        if found and size <= ALIKE * found[-1][0]:
            found[-1].append(size)
        else:
            found.append([size])
    return [max(sorted(set(alike)), key=alike.count) for alike in found]


def build(bank: Recorded, cells: Sequence[Cell]) -> tuple[Portfolio, list[str]]:
    """All candidates with what they scored in these cells, and the configuration of each.

    Of each method's default there is an entry at the length that is best in each size; these are first.
    """
    sizes, candidates = sizes_of(cells), [*bank.places]
    of_size = np.array([size_of(cell, sizes) for cell in cells])
    scores = np.array([[_truth(cell, bank.places[one]) for cell in cells] for one in candidates])
    steps = np.array([[_steps(bank, cell, bank.places[one]) for cell in cells] for one in candidates])
    defaults = sorted({one.config for one in candidates if bank.configs.origin[one.config] == "default"})
    told, chosen = [], np.zeros((len(defaults), len(cells)), int)  # by default and cell, the candidate
    for size in sizes:
        own = of_size == size
        some = [cell for cell, one in zip(cells, own, strict=True) if one]
        effects = two_way(scores[:, own], np.ones(len(some))).row
        often = (~np.isnan(scores[:, own])).sum(axis=1)
        noise = float(np.mean([cell.test_noise for cell in some]))
        for length in {one.doublings for one in candidates}:  # short ones differ more from task to task
            alike = np.array([one.doublings == length for one in candidates])[:, None] & own
            if not np.isnan(scores[alike]).all():
                part = shrunk(scores[alike].reshape(-1, len(some)), np.ones(len(some)), noise)
                scores[alike] = part.ravel()
        best = [_best(effects, often, [one.config == config for one in candidates]) for config in defaults]
        chosen[:, own] = np.array(best)[:, None]
        fixed = max(best, key=lambda place: effects[place] if often[place] else -math.inf)
        scores[:, own] -= scores[fixed, own]
        length = float(np.exp(np.nanmean(np.log(steps[fixed, own]))))
        groups = {cell.group for cell in some}
        method = str(bank.configs.method[candidates[fixed].config])
        told.append(Size(size, method, round(length), math.nan, math.nan, len({c.task for c in some}), len(groups)))
    columns = np.arange(len(cells))
    entries = [
        *(
            _entry(bank, config, steps[places, columns], scores[places, columns], default=True)
            for config, places in zip(defaults, chosen, strict=True)
        ),
        *(_entry(bank, one.config, *rows, default=False) for one, *rows in zip(candidates, steps, scores, strict=True)),
    ]
    recorded = tuple(RecordedCell(cell.task, cell.group, cell.kind, cell.size) for cell in cells)
    return Portfolio(bank.model, recorded, tuple(told), tuple(entries)), [
        *defaults,
        *(one.config for one in candidates),
    ]


def _truth(cell: Cell, places: dict[str, int]) -> float:
    return float(cell.truth[places[cell.name]]) if cell.name in places else math.nan


def _steps(bank: Recorded, cell: Cell, places: dict[str, int]) -> float:
    return bank.steps(cell, places[cell.name]) if cell.name in places else math.nan


def _best(effects: np.ndarray, often: np.ndarray, own: list[bool]) -> int:
    """The length of one configuration that does best, of those that at least half as many cells have as any."""
    allowed = np.array(own) & (often * 2 >= often[own].max())
    return int(np.argmax(np.where(allowed, effects, -np.inf)))


def _entry(bank: Recorded, config: str, steps: np.ndarray, scores: np.ndarray, *, default: bool) -> Entry:
    row = bank.configs.loc[config]
    said = {"learning_rate": float(row.lr), "batch_size": int(row.batch), **json.loads(row.params)}
    hyper = {field.name for field in fields(Hyperparameters)}
    training = {name: said[name] for name in TRAINING_SPACE if name in said and name != "epochs"}
    params = {name: value for name, value in said.items() if name not in hyper}
    return Entry(str(row.method), default, params, training, steps, scores / POINT)


def left_out(bank: Recorded, size: int, sizes: Sequence[int]) -> tuple[float, float]:
    """By how much a start chosen on the other groups gains on each cell of a size: mean over groups and its error."""
    gains, groups = [], []
    for group in sorted({cell.group for cell in bank.cells}):
        own = [cell for cell in bank.cells if cell.group == group and size_of(cell, sizes) == size]
        others = [cell for cell in bank.cells if cell.group != group]
        if not own or not others:
            continue
        known, configs = build(bank, others)
        for cell in own:
            entries = known.order(cell.size, cell.kind, {str(method) for method in cell.method})
            named = [(configs[known.entries.index(entry)], known.steps(entry, cell.size)) for entry in entries]
            if (first := bank.at(cell, *named[0])) is not None:
                others_there = [place for one in named[1:] if (place := bank.at(cell, *one)) is not None]
                gains.append(_gain(cell, [first, *others_there]))
                groups.append(group)
    if not gains:
        return math.nan, math.nan
    mean, error = by_group(np.array(gains), np.ones(len(gains)), groups)
    return mean / POINT, error / POINT


def _gain(cell: Cell, places: Sequence[int]) -> float:
    """Of the best of these over the first: the best on one half, scored on the other, and the reverse."""
    halves = cell.halves[list(places)]
    found = [halves[int(np.nanargmax(halves[:, one])), 1 - one] - halves[0, 1 - one] for one in (0, 1)]
    return float(np.mean(found))


def slim(known: Portfolio) -> Portfolio:
    """With no more than the defaults and what is tried first for some size and kind."""
    kinds = [*sorted({cell.kind for cell in known.cells}), ""]
    rows = [*(size.rows for size in known.sizes), 10**9]
    methods = {entry.method for entry in known.entries}
    wanted = {id(entry) for asked in itertools.product(rows, kinds) for entry in known.order(*asked, methods)}
    kept = tuple(entry for entry in known.entries if entry.default or id(entry) in wanted)
    return Portfolio(known.model, known.cells, known.sizes, kept)


def portfolio_of(bank: Recorded) -> Portfolio:
    """The portfolio, with what it brings on groups left out."""
    known = slim(build(bank, bank.cells)[0])
    sizes = [size.rows for size in known.sizes]
    told = []
    for size in known.sizes:
        gain, error = left_out(bank, size.rows, sizes)
        told.append(size._replace(gain=gain, error=error))
    return Portfolio(known.model, known.cells, tuple(told), known.entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path, help="the folder of the four tables")
    parser.add_argument("--schedule", help="whose runs count; those with the most runs, unless told")
    parser.add_argument("--out", type=Path, default=PATH, help="where to write it")
    arguments = parser.parse_args()
    known = portfolio_of(Recorded.read(arguments.bank, arguments.schedule))
    with whole(arguments.out) as draft:
        draft.write_text(known.to_json(), encoding="utf-8")
    methods = {entry.method for entry in known.entries}
    for size in known.sizes:
        print(
            f"{size.rows} rows: {size.default}'s default for {size.steps} steps; the best of what is tried first "
            f"{size.gain:+.2f} ± {size.error:.2f} points beside it, {size.tasks} tasks of {size.groups} groups"
        )
        for entry in known.order(size.rows, "", methods):
            print(f"    {entry.method} for {known.steps(entry, size.rows):.0f} steps: {entry.training} {entry.params}")


if __name__ == "__main__":
    main()
