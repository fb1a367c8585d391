"""The recorded curves as arrays: a cell for each task and size, with a row for each candidate.

A candidate is a configuration trained to a length. A run with cooled points is a trunk that was cut there, so it serves
a candidate for each of them; any other run serves the one that it ended as.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

TABLES = ("tasks", "configs", "runs", "points")


@dataclass(frozen=True)
class Cell:
    """All candidates of one task at one size: C candidates, R repeats (a split and a seed), K folds, P points.

    Attributes:
        task, group, kind: names.
        size: rows that a fold trains on.
        majority: the score of whoever looks at no input.
        config, method, origin: of each candidate.
        lr, cost: of each: its rate, and the parameters it trains.
        length: epochs of each, in two digits.
        epochs, rows: of each at its points, [C, P]; rows of one fold.
        score, loss: of the weights that rungs look at, [C, R, K, P]; NaN where not recorded.
        end, end_loss: of the weights that would be kept, [C, R, K].
        end_rows: of one fold to the end, [C].
        test: of these weights on either half of the test rows, [C, R, K, 2].
        test_on_the_way: the same at points, of the weights that rungs look at, [C, R, K, P, 2].
        refit: of a model that was trained on all rows, [C, 2].
    """

    task: str
    group: str
    kind: str
    size: int
    majority: float
    config: np.ndarray
    method: np.ndarray
    origin: np.ndarray
    lr: np.ndarray
    cost: np.ndarray
    length: np.ndarray
    epochs: np.ndarray
    rows: np.ndarray
    score: np.ndarray
    loss: np.ndarray
    end: np.ndarray
    end_loss: np.ndarray
    end_rows: np.ndarray
    test: np.ndarray
    test_on_the_way: np.ndarray
    refit: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.task} {self.size}"

    @cached_property
    def default(self) -> np.ndarray:
        """Whether each candidate is a method's untuned default."""
        return self.origin == "default"

    @cached_property
    def halves(self) -> np.ndarray:
        """Test scores of each candidate on either half, over all its models that were not refitted, [C, 2]."""
        return mean_of(self.test, (1, 2))

    @cached_property
    def truth(self) -> np.ndarray:
        """The best there is to say of each candidate's true score."""
        return self.halves.mean(axis=1)

    @cached_property
    def test_noise(self) -> float:
        """Variance that the choice of test rows and the luck of training leave in a candidate's `truth`.

        What all candidates share is left out, as only differences are asked for. The two halves are independent, so a
        quarter of the variance of their difference is that of their mean: no row's prediction is needed.
        """
        return halves_noise(self.halves) + self._luck

    @cached_property
    def _luck(self) -> float:
        """Of training: what candidates and folds leave unexplained of the test scores, for a mean over models."""
        scores = self.test.mean(axis=3).reshape(len(self.test), -1)
        there = ~np.isnan(scores)
        rest = scores - two_way(scores, there.astype(float)).fitted
        degrees = there.sum() - there.any(axis=1).sum() - there.any(axis=0).sum() + 1
        return float(np.sum(rest[there] ** 2) / degrees / there.sum(axis=1).mean()) if degrees > 0 else 0.0

    @cached_property
    def places(self) -> dict[str, np.ndarray]:
        """The candidates of each configuration."""
        return {str(config): np.flatnonzero(self.config == config) for config in dict.fromkeys(self.config)}

    def nearest(self, config: str, length: float) -> int | None:
        """The candidate of a configuration whose length is nearest; None where it was not recorded."""
        there = self.places.get(config)
        return None if there is None else int(there[np.argmin(np.abs(np.log(self.length[there] / length)))])


@dataclass(frozen=True)
class Bank:
    """All cells, by task and size."""

    cells: dict[tuple[str, int], Cell]

    def cell(self, task: str, size: int) -> Cell:
        return self.cells[task, size]

    @property
    def groups(self) -> list[str]:
        return sorted({cell.group for cell in self.cells.values()})

    def without(self, group: str) -> list[Cell]:
        """The cells of all other groups."""
        return [cell for cell in self.cells.values() if cell.group != group]

    @classmethod
    def read(
        cls, folder: Path, *, schedule: str | None = None, model: str | None = None, precision: str = "float32"
    ) -> Bank:
        """From the four tables.

        Args:
            folder: where they are.
            schedule, model: whose runs count; those with the most runs, unless told.
            precision: whose runs count.
        """
        if missing := [name for name in TABLES if not (Path(folder) / f"{name}.parquet").is_file()]:
            raise SystemExit(f"{folder} has no {missing[0]}.parquet. A bank has {', '.join(TABLES)}: merge it first.")
        tasks, configs, runs, points = (plain(Path(folder) / f"{name}.parquet") for name in TABLES)
        runs = runs[(runs.precision == precision) & (runs.state != "refused")]
        runs = runs[runs.model == (model or commonest(runs.model))]
        runs = runs[runs.schedule == (schedule or commonest(runs.schedule))]
        runs = runs.sort_values("recorded", kind="stable").drop_duplicates(
            ["config", "task", "size", "split_seed", "seed", "fold", "planned_steps"], keep="last"
        )
        curves = dict(list(points[points.run.isin(set(runs.run))].sort_values(["run", "steps"]).groupby("run")))
        tasks, configs = tasks.set_index("task"), configs.set_index("config")
        found = {
            (str(task), int(size)): _cell(tasks.loc[task], int(size), some, curves, configs)
            for (task, size), some in runs.groupby(["task", "size"])
        }
        return cls({key: cell for key, cell in found.items() if cell is not None})


def plain(path: Path) -> pd.DataFrame:
    """A table, its dictionaries as text."""
    table = pd.read_parquet(path)
    return table.astype({name: str for name in table.select_dtypes("category").columns})


def commonest(values: pd.Series) -> str:
    if values.empty:
        raise SystemExit("The bank has no run of this precision, model and schedule. Name others.")
    return str(values.mode()[0])


def two_digits(value: float) -> float:
    """Folds differ by a row or two, so their epochs do: the same length all the same."""
    return float(f"{value:.2g}")


def mean_of(values: np.ndarray, axes: int | tuple[int, ...]) -> np.ndarray:
    """The mean of what is there; NaN where nothing is."""
    there = ~np.isnan(values)
    count = there.sum(axis=axes)
    return np.where(count, np.where(there, values, 0).sum(axis=axes) / np.maximum(count, 1), np.nan)


def halves_noise(halves: np.ndarray) -> float:
    """Variance of the mean of two halves, beyond what all candidates share."""
    gaps = halves[:, 0] - halves[:, 1]
    gaps = gaps[~np.isnan(gaps)]
    return float(np.var(gaps, ddof=1) / 4) if len(gaps) > 1 else 0.0


@dataclass(frozen=True)
class TwoWay:
    """A table as effects of its rows and of its columns: `row` sums to zero."""

    row: np.ndarray
    column: np.ndarray

    @property
    def fitted(self) -> np.ndarray:
        return self.row[:, None] + self.column


def two_way(table: np.ndarray, weights: np.ndarray, rounds: int = 60) -> TwoWay:
    """By weighted least squares, of a table with gaps: row and column effects in turn until they are still.

    Args:
        table: scores, [rows, columns]; NaN where there is none.
        weights: of the entries, as large or one for each column.
        rounds: at most.
    """
    weights = np.where(np.isnan(table), 0.0, np.broadcast_to(weights, table.shape))
    values, row = np.nan_to_num(table), np.zeros(len(table))
    by_row, by_column = np.maximum(weights.sum(axis=1), 1e-12), np.maximum(weights.sum(axis=0), 1e-12)
    for _ in range(rounds):
        column = (weights * (values - row[:, None])).sum(axis=0) / by_column
        before, row = row, (weights * (values - column)).sum(axis=1) / by_row
        row = np.where(weights.any(axis=1), row - row[weights.any(axis=1)].mean(), np.nan_to_num(row))
        if np.abs(row - before).max() < 1e-9:
            break
    return TwoWay(row, (weights * (values - row[:, None])).sum(axis=0) / by_column)


@dataclass(frozen=True)
class _Trunk:
    """The runs of one configuration to one planned length, and which repeat and fold each is."""

    config: str
    planned: float
    runs: list[tuple[pd.Series, pd.DataFrame]]

    @property
    def lengths(self) -> list[float]:
        """At which a candidate ends; of runs that all diverged, what was planned."""
        found = {two_digits(end.epochs) for run, curve in self.runs for end in _ends(run, curve)}
        return sorted(found) or [self.planned]


def _ends(run: pd.Series, curve: pd.DataFrame) -> list[pd.Series]:
    """Points at which a run gave weights that would be kept."""
    cooled = curve[curve.weights == "cooled"]
    if run.state == "diverged":
        return [point for _, point in cooled.iterrows()]
    raw = curve[curve.weights == "raw"]
    return [
        point for _, point in (cooled if len(cooled) else raw.iloc[-1:] if len(raw) else curve.iloc[-1:]).iterrows()
    ]


def _on_the_way(curve: pd.DataFrame) -> pd.DataFrame:
    """What rungs look at: averaged weights where they were recorded."""
    averaged = curve[curve.weights == "ema"]
    return averaged if len(averaged) else curve[curve.weights == "raw"]


def _cell(
    task: pd.Series, size: int, runs: pd.DataFrame, curves: dict[str, pd.DataFrame], configs: pd.DataFrame
) -> Cell | None:
    runs = runs[runs.run.isin(curves) | (runs.state == "diverged")]
    nothing = next(iter(curves.values())).iloc[:0]
    planned = (runs.planned_steps * runs.rows_per_step / size).map(two_digits)
    folds = runs[runs.fold >= 0]
    trunks = [
        _Trunk(str(config), float(length), [(run, curves.get(run.run, nothing)) for _, run in some.iterrows()])
        for (config, length), some in folds.groupby(["config", planned[folds.index]])
    ]
    repeats = {key: number for number, key in enumerate(sorted(set(zip(folds.split_seed, folds.seed, strict=True))))}
    shape, width = (len(repeats), 1 + int(folds.fold.max())), max((len(_keys(trunk)) for trunk in trunks), default=0)
    made = {}
    for trunk in sorted(trunks, key=lambda trunk: len(trunk.runs)):
        for length in trunk.lengths:
            made[trunk.config, length] = _candidate(trunk, length, repeats, shape, width, float(task.majority))
    made = {key: one for key, one in made.items() if not np.isnan(one["test"]).all()}
    if not made:
        return None
    refits = _refits(runs[runs.fold < 0], curves)
    names = [config for config, _ in made]
    told = configs.loc[names]
    columns = {name: np.array([one[name] for one in made.values()]) for name in next(iter(made.values()))}
    return Cell(
        task=str(task.name),
        group=str(task.group),
        kind=str(task.kind),
        size=size,
        majority=float(task.majority),
        config=np.array(names),
        method=told.method.to_numpy(str),
        origin=told.origin.to_numpy(str),
        lr=told.lr.to_numpy(float),
        length=np.array([length for _, length in made]),
        refit=np.array([refits.get(key, (np.nan, np.nan)) for key in made]),
        **columns,
    )


def _refits(runs: pd.DataFrame, curves: dict[str, pd.DataFrame]) -> dict[tuple[str, float], tuple[float, float]]:
    """Test scores of models that were trained on all rows, by configuration and epochs."""
    return {
        (str(run.config), two_digits(end.epochs)): (end.test_score_a, end.test_score_b)
        for _, run in runs.iterrows()
        if run.run in curves
        for end in _ends(run, curves[run.run])
    }


def _keys(trunk: _Trunk) -> list[float]:
    """Epochs of the points that any run of a trunk recorded on the way."""
    return sorted({two_digits(epochs) for _, curve in trunk.runs for epochs in _on_the_way(curve).epochs})


def _candidate(
    trunk: _Trunk,
    length: float,
    repeats: dict[tuple[int, int], int],
    shape: tuple[int, int],
    width: int,
    majority: float,
) -> dict[str, np.ndarray | float]:
    """A candidate's arrays. From where a run diverged on it scores as whoever looks at no input."""
    place = {key: number for number, key in enumerate(_keys(trunk))}
    blank = {
        "score": (width,),
        "loss": (width,),
        "end": (),
        "end_loss": (),
        "test": (2,),
        "test_on_the_way": (width, 2),
    }
    found = {name: np.full((*shape, *more), np.nan) for name, more in blank.items()}
    rows, end_rows = np.full((width, len(trunk.runs)), np.nan), []
    for number, (run, curve) in enumerate(trunk.runs):
        where = repeats[run.split_seed, run.seed], int(run.fold)
        if run.state == "diverged":
            for name in ("score", "end", "test", "test_on_the_way"):
                found[name][where] = majority
        way = _on_the_way(curve)
        points = [place[two_digits(epochs)] for epochs in way.epochs]
        found["score"][where][points], found["loss"][where][points] = way.val_score, way.val_loss
        found["test_on_the_way"][where][points] = way[["test_score_a", "test_score_b"]]
        rows[points, number] = way.rows
        for end in (end for end in _ends(run, curve) if two_digits(end.epochs) == length):
            found["end"][where], found["end_loss"][where] = end.val_score, end.val_loss
            found["test"][where] = end.test_score_a, end.test_score_b
            end_rows.append(end.rows)
    planned = max(run.planned_steps * run.rows_per_step for run, _ in trunk.runs)
    epochs = np.full(width, np.nan)
    epochs[: len(place)] = list(place)
    return {
        **found,
        "rows": mean_of(rows, 1),
        "epochs": epochs,
        "end_rows": float(np.mean(end_rows)) if end_rows else float(planned),
        "cost": float(np.mean([run.trained_params for run, _ in trunk.runs])),
    }
