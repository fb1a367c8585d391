"""Records cells into a folder: a part for each, written once and whole, by whichever process took it."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from curves import TRUNK, Curve, folds_of, mapped, test_scores, trained
from drawing import content, prepared
from filelock import FileLock, Timeout
from measures import joined
from pool import Pool, pool, space_of, table
from schema import CONFIGS, DIVERGED, ENSEMBLE, POINTS, REFUSED, RUNS, TASKS, read, rows, write
from sources import SIZES, TEST_HALF_SEED, BankTask, Folders
from sources import TASKS as BANK
from stages import WSD, Cell

from autopeft.common.files import whole
from autopeft.execution.problem import Problem
from autopeft.methods.registry import Registry, discover
from autopeft.models.device import name_of
from autopeft.study.file import StudySpec

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
RUNS_PART, POINTS_PART, TASK_PART = ".runs.parquet", ".points.parquet", ".task.parquet"
ANSWERS, TRUTHS = ".answers.npz", ".truths.npz"


class Recorder:
    """Records cells into a folder.

    Attributes:
        parts: the folder with a part for each cell.
    """

    def __init__(self, out: Path, folders: Folders, model: str, tasks: Mapping[str, BankTask] = BANK) -> None:
        self._out, self._folders, self._model, self._tasks = out, folders, model, tasks
        self._registry: Registry = discover()
        self.parts, self._claims = out / "parts", out / "claims"
        for folder in (self.parts, self._claims):
            folder.mkdir(parents=True, exist_ok=True)
        self._problem = lru_cache(maxsize=1)(self._load)  # a model, and its rows as tokens
        self._sites: dict[tuple[str, ...], bool | None] = {}
        named = model.removeprefix("package:") if model.startswith("package:") else Path(model).name
        self._origin = {"model": named, "machine": machine(), "code": code()}
        merged = read(out / "runs.parquet", RUNS)["run"].to_pylist()
        self._merged = {run.rpartition(".")[0] for run in merged}  # without the fold: the name of its cell

    def problem(self, cell: Cell) -> Problem:
        """What the cell's study has; that of the last one is kept."""
        return self._problem(cell.task, cell.size, cell.precision, cell.split_seed)

    def _load(self, name: str, size: str, precision: str, seed: int) -> Problem:
        task = self._tasks[name]
        files = prepared(task, size, self._folders, self._out / "rows")
        said = content(task, files, self._model, precision, seed, self._out)
        problem = Problem.from_spec(StudySpec.from_mapping(said), self._registry)
        self._describe(task, size, problem)
        return problem

    def _describe(self, task: BankTask, size: str, problem: Problem) -> None:
        """Keep what is known of the task, and what is true of its rows."""
        answers = problem.task.baseline(problem.train.truths, problem.test.truths, problem.rows.labels).answers
        row = {
            "task": task.name,
            "group": task.group,
            "kind": task.kind,
            "metric": problem.metric,
            "classes": len(problem.rows.labels),
            "source": task.source,
            "licence": task.licence,
            "test_rows": len(problem.test.truths),
            "majority": problem.task.score(problem.metric, problem.test.truths, answers),
            "mean_tokens": float(problem.train.lengths.mean()),
            "test_half_seed": TEST_HALF_SEED,
        }
        write(rows(TASKS, [row]), self.parts / (task.name + TASK_PART))
        with whole(self.parts / f"{task.name}.{size}{TRUTHS}") as draft, draft.open("wb") as file:
            true = problem.train.truths[in_file(problem)]
            np.savez_compressed(file, train=even(true), test=even(problem.test.truths))

    def pool(self, task: str, size: str) -> Pool:
        """The configurations, which are kept in `configs.parquet`; those that are there stay."""
        base = self._problem(task, size, "float32", 0).base
        space = space_of(base, self._registry)
        found, path = pool(space), self._out / "configs.parquet"
        known = read(path, CONFIGS)
        names = {*known["config"].to_pylist()}
        new = [config for block in found.values() for config in block if config.name not in names]
        if new:
            write(rows(CONFIGS, [*known.to_pylist(), *table(new, base, space)]), path)
        return found

    def recorded(self) -> set[str]:
        """Names of the cells that are there, as parts or in tables that parts were merged into."""
        return self._merged | {path.name.removesuffix(RUNS_PART) for path in self.parts.glob(f"*{RUNS_PART}")}

    def record(self, cell: Cell) -> list[Curve] | None:
        """Train a cell and write its part; None where it is there, or another process is at it."""
        try:
            with FileLock(self._claims / f"{cell.name}.lock", blocking=False):
                if (self.parts / f"{cell.name}{RUNS_PART}").is_file():
                    return None
                problem = self.problem(cell)
                curves = self._trained(problem, cell)
                self._keep(problem, cell, curves)
                return curves
        except Timeout:
            return None

    def _trained(self, problem: Problem, cell: Cell) -> list[Curve]:
        method = cell.config.method
        if method not in problem.space:
            curves = folds_of(problem, refit=cell.refit)
            for curve in curves:
                curve.state, curve.reason = REFUSED, problem.refused[method]
            return curves
        options = TRUNK if cell.schedule == WSD else {}
        candidate = cell.config.candidate(problem.space, cell.epochs, **options)
        key = (problem.task.kind, cell.precision, cell.config.name)
        if key not in self._sites and not cell.refit:
            self._sites[key] = mapped(problem, candidate)
        return trained(problem, candidate, cell, self._sites.get(key))

    def _keep(self, problem: Problem, cell: Cell, curves: list[Curve]) -> None:
        """The points and answers first: a part counts once its runs are there."""
        answered = [curve for curve in curves if curve.answers and curve.state != DIVERGED]
        if len(answered) == len(curves):
            with whole(self.parts / f"{cell.name}{ANSWERS}") as draft, draft.open("wb") as file:
                np.savez_compressed(file, **answers_of(problem, curves))
        curves = [*curves, *ensemble(problem, curves)]
        names = [f"{cell.name}.{curve.fold}" for curve in curves]
        points = [{"run": name, **point} for name, curve in zip(names, curves, strict=True) for point in curve.points]
        write(rows(POINTS, points), self.parts / f"{cell.name}{POINTS_PART}")
        shared = {
            "config": cell.config.name,
            "task": cell.task,
            "size": SIZES[cell.size],
            "split_seed": cell.split_seed,
            "seed": cell.seed,
            "precision": name_of(problem.device.autocast),
            "schedule": cell.schedule,
            "rows_per_step": cell.config.params["batch_size"],
            "recorded": datetime.datetime.now(datetime.UTC).replace(microsecond=0),
            **self._origin,
        }
        told = ("fold", "planned_steps", "trained_params", "state", "reason", "seconds_per_row")
        found = [
            {"run": name, **shared, **{key: getattr(curve, key) for key in told}}
            for name, curve in zip(names, curves, strict=True)
        ]
        write(rows(RUNS, found), self.parts / f"{cell.name}{RUNS_PART}")


def answers_of(problem: Problem, curves: list[Curve]) -> dict[str, np.ndarray]:
    """`test` `[folds, test rows, …]` and `out_of_fold` `[training rows, …]`, rows as in their files, half precision."""
    found = {"test": np.stack([joined([curve.answers["test"]]) for curve in curves])}
    if all("validation" in curve.answers for curve in curves):
        places = np.concatenate([problem.train.rows_of(curve.validation) for curve in curves])
        answers = joined([curve.answers["validation"] for curve in curves])
        found["out_of_fold"] = answers[np.argsort(places)][in_file(problem)]
    return found


def ensemble(problem: Problem, curves: list[Curve]) -> list[Curve]:
    """The folds together, as one more curve of a single point; none where answers have no mean, or a fold diverged.

    A task that learns from the rows that folds validate how to answer, such as a threshold, is left out.
    """
    answers = [curve.answers["test"] for curve in curves if "test" in curve.answers and curve.state != DIVERGED]
    if len(curves) < 2 or len(answers) < len(curves) or not problem.task.averages or problem.task.calibrates:
        return []
    last = curves[0].points[-1]
    point = {name: last[name] for name in ("steps", "epochs", "rows", "weights")}
    found = Curve(ENSEMBLE, problem.all_rows, np.array([], np.int64), [point])
    found.planned_steps, found.trained_params = curves[0].planned_steps, sum(one.trained_params for one in curves)
    point |= test_scores(problem, problem.task, np.mean(answers, axis=0))
    return [found]


def in_file(problem: Problem) -> np.ndarray:
    """The training rows in the order of their file, which a study shuffles by its seed."""
    return np.argsort(problem.rows.train.index.to_numpy())


def even(truths: np.ndarray) -> np.ndarray:
    """Truths of as many places for every row, with -1 where a row has fewer."""
    if truths.dtype != object:
        return truths
    found = np.full((len(truths), max(map(len, truths))), -1, np.int16)
    for row, own in zip(found, truths, strict=True):
        row[: len(own)] = own
    return found


def machine() -> str:
    """What the runs were made on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        model = next((line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line),
                     model)  # fmt: skip
    return f"{model}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def code() -> str:
    """The commit of this code; with + where files were changed since."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short=12", "HEAD") + "+" * bool(
        git("status", "--porcelain", "--", "autopeft", "plugins")
    )
