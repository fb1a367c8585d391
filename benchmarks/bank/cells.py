"""The recorded curves as arrays: a cell for each task and size, with a row for each candidate.

A candidate is a configuration trained to a length. A run with cooled points is a trunk that was cut there, so it serves
a candidate for each of them; any other run serves the one that it ended as.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from effects import halves_noise, mean_of, residual_squares
from schema import ENSEMBLE, REFIT

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
        ensemble: of the fold models' mean answers, [C, 2]; a mean over repeats.
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
    ensemble: np.ndarray

    @property
    def name(self) -> str:
        """As tables show it."""
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
        squares, degrees = residual_squares(scores)
        return float(squares / degrees / (~np.isnan(scores)).sum(axis=1).mean()) if degrees > 0 else 0.0

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
        """That of a task with so many rows."""
        return self.cells[task, size]

    @property
    def groups(self) -> list[str]:
        """What is left out together."""
        return sorted({cell.group for cell in self.cells.values()})

    def without(self, group: str) -> list[Cell]:
        """The cells of all other groups."""
        return [cell for cell in self.cells.values() if cell.group != group]

    @classmethod
    def read(
        cls, folder: Path, *, schedule: str | None = None, model: str | None = None, precision: str | None = None
    ) -> Bank:
        """From the four tables.

        Args:
            folder: where they are.
            schedule: whose runs count; the one with the most runs, unless told.
            model: the same.
            precision: the same.
        """
        if missing := [name for name in TABLES if not (Path(folder) / f"{name}.parquet").is_file()]:
            raise SystemExit(f"{folder} has no {missing[0]}.parquet. A bank has {', '.join(TABLES)}: merge it first.")
        tasks, configs, runs, points = (plain(Path(folder) / f"{name}.parquet") for name in TABLES)
        runs = runs[runs.state != "refused"]
        runs = runs[runs.precision == (precision or commonest(runs.precision))]
        runs = runs[runs.model == (model or commonest(runs.model))]
        runs = runs[runs.schedule == (schedule or commonest(runs.schedule))]
        runs = runs.sort_values("recorded", kind="stable").drop_duplicates(
            ["config", "task", "size", "split_seed", "seed", "fold", "planned_steps"], keep="last"
        )
        curves = _curves(points[points.run.isin(set(runs.run))])
        tasks, configs = tasks.set_index("task"), configs.set_index("config")
        found = {
            (str(task), int(size)): _cell(tasks.loc[task], int(size), list(some.itertuples()), curves, configs)
            for (task, size), some in runs.groupby(["task", "size"])
        }
        return cls({key: cell for key, cell in found.items() if cell is not None})


def plain(path: Path) -> pd.DataFrame:
    """A table, its dictionaries as text."""
    table = pd.read_parquet(path)
    return table.astype(dict.fromkeys(table.select_dtypes("category").columns, str))


def commonest(values: pd.Series) -> str:
    if values.empty:
        raise SystemExit("The bank has no run of this precision, model and schedule. Name others.")
    return str(values.mode()[0])


def two_digits(value: float) -> float:
    """Folds differ by a row or two, so their epochs do: the same length all the same."""
    return float(f"{value:.2g}")


class Curve(NamedTuple):
    """Points of a run by steps; `test` has both halves, [points, 2]."""

    weights: np.ndarray
    epochs: np.ndarray
    rows: np.ndarray
    score: np.ndarray
    loss: np.ndarray
    test: np.ndarray

    def only(self, kept: np.ndarray | slice) -> Curve:
        """Some of its points."""
        return Curve(*(values[kept] for values in self))

    @property
    def on_the_way(self) -> Curve:
        """What rungs look at: averaged weights where they were recorded."""
        averaged = self.weights == "ema"
        return self.only(averaged if averaged.any() else self.weights == "raw")

    def ends(self, state: str) -> Curve:
        """Points at which the run gave weights that would be kept."""
        cooled = self.weights == "cooled"
        if state == "diverged" or cooled.any():
            return self.only(cooled)
        raw = self.weights == "raw"
        return (self.only(raw) if raw.any() else self).only(slice(-1, None))


NOTHING = Curve(np.empty(0, str), *np.empty((4, 0)), np.empty((0, 2)))


def _curves(points: pd.DataFrame) -> dict[str, Curve]:
    """By run."""
    points = points.sort_values(["run", "steps"], kind="stable")
    columns = [points[name].to_numpy(float) for name in ("epochs", "rows", "val_score", "val_loss")]
    whole = Curve(points.weights.to_numpy(str), *columns, points[["test_score_a", "test_score_b"]].to_numpy(float))
    names, starts = np.unique(points.run.to_numpy(str), return_index=True)
    ends = [*starts[1:], len(points)]
    return {str(n): whole.only(slice(start, end)) for n, start, end in zip(names, starts, ends, strict=True)}


@dataclass(frozen=True)
class _Trunk:
    """The runs of one configuration to one planned length."""

    config: str
    planned: float
    runs: list[tuple[Any, Curve]]

    @property
    def lengths(self) -> list[float]:
        """At which a candidate ends; of runs that all diverged, what was planned."""
        found = {two_digits(epochs) for run, curve in self.runs for epochs in curve.ends(run.state).epochs}
        return sorted(found) or [self.planned]

    @property
    def points(self) -> list[float]:
        """Epochs of the points that any run recorded on the way."""
        return sorted({two_digits(epochs) for _, curve in self.runs for epochs in curve.on_the_way.epochs})


def _cell(task: pd.Series, size: int, runs: list[Any], curves: dict[str, Curve], configs: pd.DataFrame) -> Cell | None:
    trunks: dict[tuple[str, float], _Trunk] = {}
    for run in runs:
        if run.fold >= 0 and (run.run in curves or run.state == "diverged"):
            key = run.config, two_digits(run.planned_steps / math.ceil(size / run.rows_per_step))
            trunks.setdefault(key, _Trunk(*key, [])).runs.append((run, curves.get(run.run, NOTHING)))
    folds = [run for trunk in trunks.values() for run, _ in trunk.runs]
    if not folds:
        return None
    repeats = {key: number for number, key in enumerate(sorted({(run.split_seed, run.seed) for run in folds}))}
    shape = len(repeats), 1 + max(run.fold for run in folds), max(len(trunk.points) for trunk in trunks.values())
    made = {
        (trunk.config, length): _candidate(trunk, length, repeats, shape, float(task.majority))
        for trunk in sorted(trunks.values(), key=lambda trunk: len(trunk.runs))
        for length in trunk.lengths
    }
    made = {key: one for key, one in made.items() if not np.isnan(one["test"]).all()}
    if not made:
        return None
    names = [config for config, _ in made]
    refits, ensembles = (_scores(runs, curves, fold) for fold in (REFIT, ENSEMBLE))
    nothing = np.full(2, np.nan)
    told = configs.loc[names]
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
        refit=np.array([refits.get(key, nothing) for key in made]),
        ensemble=np.array([ensembles.get(key, nothing) for key in made]),
        **{name: np.array([one[name] for one in made.values()]) for name in next(iter(made.values()))},
    )


def _scores(runs: list[Any], curves: dict[str, Curve], fold: int) -> dict[tuple[str, float], np.ndarray]:
    """Test scores of what is not of a single fold, by configuration and epochs; means over repeats."""
    found: dict[tuple[str, float], list[np.ndarray]] = {}
    for run in runs:
        if run.fold == fold and run.run in curves:
            ends = curves[run.run].ends(run.state)
            for epochs, test in zip(ends.epochs, ends.test, strict=True):
                found.setdefault((run.config, two_digits(epochs)), []).append(test)
    return {key: np.mean(several, axis=0) for key, several in found.items()}


def _candidate(
    trunk: _Trunk, length: float, repeats: dict[tuple[int, int], int], shape: tuple[int, int, int], majority: float
) -> dict[str, np.ndarray | float]:
    """A candidate's arrays. From where a run diverged on it scores as whoever looks at no input."""
    place = {key: number for number, key in enumerate(trunk.points)}
    *folds, width = shape
    blank = {
        "score": (width,),
        "loss": (width,),
        "end": (),
        "end_loss": (),
        "test": (2,),
        "test_on_the_way": (width, 2),
    }
    found = {name: np.full((*folds, *more), np.nan) for name, more in blank.items()}
    rows, end_rows, epochs = np.full((width, len(trunk.runs)), np.nan), [], np.full(width, np.nan)
    for number, (run, curve) in enumerate(trunk.runs):
        where = repeats[run.split_seed, run.seed], run.fold
        way, ends = curve.on_the_way, curve.ends(run.state)
        points = [place[two_digits(epochs)] for epochs in way.epochs]
        found["score"][where][points], found["loss"][where][points] = way.score, way.loss
        found["test_on_the_way"][where][points], rows[points, number] = way.test, way.rows
        for end in np.flatnonzero([two_digits(epochs) == length for epochs in ends.epochs]):
            found["end"][where], found["end_loss"][where] = ends.score[end], ends.loss[end]
            found["test"][where] = ends.test[end]
            end_rows.append(ends.rows[end])
        if run.state == "diverged":
            for name in ("score", "end", "test", "test_on_the_way"):
                found[name][where] = np.where(np.isnan(found[name][where]), majority, found[name][where])
    epochs[: len(place)] = list(place)
    before = float(np.nan_to_num(rows).max(initial=0.0))  # of folds that all diverged
    return {
        **found,
        "rows": mean_of(rows, 1),
        "epochs": epochs,
        "end_rows": float(np.mean(end_rows)) if end_rows else before,
        "cost": float(np.mean([run.trained_params for run, _ in trunk.runs])),
    }
