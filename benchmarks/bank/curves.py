"""Train the folds of a candidate, and note at some steps what they score: the rows of `runs` and `points`.

The package's own learner trains the package's own folds, packed where they can be, in the batches and with the seeds of
a study with the same rows and seed; what is added is that losses and test rows are looked at on the way.

With a constant rate the weights of a point come in three ways: as they are, averaged over the latest steps, and, at
steps that are tested, cooled down. A cooldown ends at the step of its point; it starts from a copy that was kept.
"""

from __future__ import annotations

import itertools
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from measures import LossProbe, brier, halves, largest_share
from schema import COLLAPSED, COOLED, DIVERGED, DONE, EMA, RAW, REFIT
from sources import TEST_HALF_SEED

from autopeft.common.seeds import REFIT_STREAM, derive_seed
from autopeft.execution.packing_choice import gradients
from autopeft.methods.contract import PeftMethod
from autopeft.models.attach import attach
from autopeft.training import collapse
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.collapse import state_of_fold
from autopeft.training.learner import DivergedError, Learner, evaluate, train_epoch
from autopeft.training.packing import pack
from autopeft.training.packing_check import packable
from autopeft.training.rungs import epochs_between, rung_ends
from autopeft.training.schedule import cooldown_of

if TYPE_CHECKING:
    from stages import Cell

    from autopeft.data.encoded import Encoded
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.tasks.contract import Task

TRUNK = {"schedule": "constant", "averaged": True}
"""How a run is trained whose points are averaged and cooled."""

TESTED = (1 / 6, 1 / 3, 1 / 2, 1.0)
"""Shares of a trunk's length, in whole epochs, after which it is cut and cooled and test rows are answered."""

CHECKED = (2, 3)
"""Rows of the folds by turns, none twice, by which it is found out whether a method can be packed."""


@dataclass
class Curve:
    """What is known of one fold.

    Attributes:
        fold: its number; `REFIT` where all rows are trained on.
        train, validation: positions of its rows.
        points: rows of `points` without the name of the run.
        answers: to the rows it validates and to the test rows, of the last point.
        task: with what its answers to the rows it validates told, such as a threshold.
    """

    fold: int
    train: np.ndarray
    validation: np.ndarray
    points: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, np.ndarray] = field(default_factory=dict)
    task: Any = None
    state: str = DONE
    reason: str = ""
    trained_params: int = 0
    planned_steps: int = 0
    seconds_per_row: float = 0.0


def calibrated(task: Task, answers: np.ndarray, truths: np.ndarray) -> Task:
    """The task with what a trial learns from the rows that folds validate; here from those of one fold."""
    if not task.calibrates:
        return task
    return task.knowing({**task.facts, **task.calibrated(answers, truths)}, task.names)


@dataclass(frozen=True)
class Stop:
    """A step after which a run is looked at; `tested`: test rows are answered too."""

    steps: int
    tested: bool


def stops(epochs: int, batches: int, rows: int, *, trunk: bool) -> list[Stop]:
    """Where a study would have its rungs, and half way. The end is tested; of a trunk what its cuts are compared at."""
    tested = {max(1, round(epochs * share)) for share in TESTED} if trunk else {epochs}
    ends = sorted({*rung_ends(epochs, rows), epochs / 2, *tested})
    found = {round(end * batches): end in tested for end in ends if round(end * batches)}
    return [Stop(steps, tested) for steps, tested in sorted(found.items())]


def folds_of(problem: Problem, *, refit: bool) -> list[Curve]:
    """The folds of a study, or all of its rows as one that validates none."""
    if refit:
        return [Curve(REFIT, problem.all_rows, np.array([], np.int64))]
    return [Curve(number, fold.train, fold.validation) for number, fold in enumerate(problem.folds)]


def mapped(problem: Problem, candidate: Candidate) -> bool | None:
    """How the candidate's folds are packed (`packing.packable`); None: one after the other."""
    if type(candidate.method).callback is not PeftMethod.callback:
        return None
    rows: list[np.ndarray] = []
    for fold, count in zip(problem.folds, itertools.cycle(CHECKED), strict=False):
        rows.append(np.setdiff1d(fold.train, np.concatenate([*rows, np.array([], np.int64)]))[:count])
    return packable(
        lambda: attached(problem, candidate),
        lambda model, batch: gradients(model, batch, problem.task, problem.device),
        Batch.of(problem.train, rows, problem.device.type),
        problem.device.autocast or torch.float32,
    )


def attached(problem: Problem, candidate: Candidate) -> torch.nn.Module:
    """The base model with the candidate's add-on."""
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed)
    return model.to(problem.device.type)


def trained(problem: Problem, candidate: Candidate, cell: Cell, sites: bool | None) -> list[Curve]:
    """The curves of all folds; packed unless `sites` is None.

    Folds that diverge together are trained again one by one, since they do not tell which of them did.
    """
    curves = folds_of(problem, refit=cell.refit)
    if sites is not None and len(curves) > 1:
        together = Course(problem, candidate, curves, sites).run()
        if all(curve.state != DIVERGED for curve in together):
            return together
        curves = folds_of(problem, refit=cell.refit)
    return [found for curve in curves for found in Course(problem, candidate, [curve], sites).run()]


def test_scores(problem: Problem, task: Task, answers: np.ndarray) -> dict[str, float]:
    """The scores of answers to the test rows, on either half of them."""
    truths = problem.test.truths
    return {
        f"test_score_{name}": task.score(problem.metric, truths[half], answers[half])
        for name, half in zip("ab", halves(len(truths), TEST_HALF_SEED), strict=True)
    }


class Course:
    """The training of one fold, or of all folds packed.

    Attributes:
        trunk: whether the rate is constant, so that points are averaged and cooled too.
        seconds: of training so far, without what is evaluated.
    """

    def __init__(self, problem: Problem, candidate: Candidate, curves: list[Curve], sites: bool | None) -> None:
        self.problem, self.curves, self.folds, self.seconds = problem, curves, len(curves), 0.0
        model = attached(problem, candidate)
        if self.folds > 1:
            pack(model, self.folds, sites=bool(sites))
        sizes = [len(curve.train) for curve in folds_of(problem, refit=curves[0].fold == REFIT)]
        size = candidate.hyper.batch_size
        rows = min(max(sizes), min(sizes) * size)  # as in cross-validation: all folds have as many batches
        callback = candidate.method.callback(model, candidate.params, problem.base.spec)
        execution = Execution(size, folds=self.folds)
        self.learner = Learner(model, candidate.hyper, rows, execution, callback=callback, device=problem.device)
        self.learner.optimizer.register_step_pre_hook(self._take_norm)
        self.trunk = candidate.hyper.schedule == TRUNK["schedule"]
        self.stops = stops(candidate.hyper.epochs, self.learner.batches, min(sizes), trunk=self.trunk)
        self._forget()
        for curve in curves:
            curve.trained_params = sum(parameter.numel() for parameter in self.learner.parameters) // self.folds
            curve.planned_steps = self.learner.steps

    def run(self) -> list[Curve]:
        """Train to the end, or until a loss is no longer finite; the curves with their points."""
        try:
            for stop in self.stops:
                self._forget()
                if self.trunk and stop.tested:
                    self._branch(stop)
                    continue
                self._advance(stop.steps)
                self._note(RAW, tested=stop.tested)
                if self.trunk:
                    self._note(EMA)
        except DivergedError as error:
            for curve in self.curves:
                curve.state, curve.reason = DIVERGED, str(error)
        else:
            self._judge()
        rows = sum(self._rows(curve) for curve in self.curves)
        for curve in self.curves:
            curve.seconds_per_row = self.seconds / max(1, rows)
        return self.curves

    def _branch(self, stop: Stop) -> None:
        """Reach a step at a constant rate, and once more with a cooldown that ends there."""
        learner = self.learner
        cooldown = min(cooldown_of(stop.steps), stop.steps - learner.done)
        self._advance(stop.steps - cooldown)
        before, seconds = learner.states(), self.seconds
        self._advance(stop.steps)
        self._note(RAW)
        self._note(EMA, tested=stop is self.stops[-1])
        here, whole = learner.states(), self.seconds
        self._forget()
        self.seconds = seconds
        learner.restore(before)
        learner.cool_down(cooldown)
        self._advance(stop.steps)
        self._note(COOLED, tested=True)
        learner.restore(here)
        self.seconds = whole

    def _forget(self) -> None:
        """Begin to count losses and gradients anew."""
        self.losses, self.counted = np.zeros(self.folds), 0
        self.norms: list[torch.Tensor] = []

    def _advance(self, steps: int) -> None:
        """Train up to so many steps."""
        learner, problem, started = self.learner, self.problem, time.perf_counter()
        rows = [curve.train for curve in self.curves]
        for epoch, part in epochs_between(learner.done / learner.batches, steps / learner.batches):
            before, (seeds, order) = learner.done, self._seeds(epoch)
            found = train_epoch(learner, problem.train, rows, problem.task, problem.device, seeds, order, part)
            self.losses += found * (learner.done - before)
            self.counted += learner.done - before
        self.seconds += time.perf_counter() - started

    def _seeds(self, epoch: int) -> tuple[list[int], int]:
        """Of each fold's batches in an epoch, and of their order, as a study has them."""
        seed = self.problem.spec.seed
        if self.curves[0].fold == REFIT:
            own = derive_seed(seed, REFIT_STREAM, epoch)
            return [own], own
        return [derive_seed(seed, curve.fold, epoch) for curve in self.curves], derive_seed(seed, epoch)

    def _take_norm(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        """Of each fold's gradient, as it is clipped."""
        found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        each = torch.stack([gradient.detach().reshape(self.folds, -1).norm(dim=1) for gradient in found])
        self.norms.append(each.norm(dim=0))

    def _answers(self, data: Encoded, rows: list[np.ndarray]) -> tuple[list[np.ndarray], list[float]]:
        probe = LossProbe(self.problem.task, len(rows))
        return evaluate(self.learner.model, data, rows, probe, self.problem.device), probe.losses  # type: ignore[arg-type]  # it stands in for the task

    def _note(self, weights: str, *, tested: bool = False) -> None:
        """Add a point to every curve."""
        problem, learner = self.problem, self.learner
        validates = all(len(curve.validation) for curve in self.curves)
        with learner.averaged() if weights == EMA else nullcontext():
            held = self._answers(problem.train, [curve.validation for curve in self.curves]) if validates else None
            test = self._answers(problem.test, [problem.test.everything] * self.folds) if tested else None
        norms = torch.stack(self.norms).mean(dim=0).tolist() if self.norms else [None] * self.folds
        for place, curve in enumerate(self.curves):
            task, point = problem.task, {
                "steps": learner.done,
                "epochs": learner.done / learner.batches,
                "rows": self._rows(curve),
                "weights": weights,
                "train_loss": self.losses[place] / max(1, self.counted),
                "grad_norm": norms[place],
                "seconds": self.seconds / self.folds,
            }  # fmt: skip
            if held:
                answers, truths = held[0][place], self._truths(curve)
                task = curve.task = calibrated(task, answers, truths)
                curve.answers["validation"] = answers
                point |= {
                    "val_score": task.score_of_fold(problem.metric, truths, answers),
                    "val_loss": held[1][place],
                    "val_brier": brier(answers, truths),
                    "val_largest_share": largest_share(task, answers, truths),
                }
            if test:
                curve.answers["test"] = test[0][place]
                point |= test_scores(problem, task, test[0][place]) | {"test_loss": test[1][place]}
            curve.points.append(point)

    def _judge(self) -> None:
        """Name the folds that did not learn, by the signs of the kind of task."""
        for curve in self.curves:
            task, part, truths = curve.task or self.problem.task, "test", self.problem.test.truths
            if "validation" in curve.answers:
                part, truths = "validation", self._truths(curve)
            losses = [point["train_loss"] for point in curve.points if point["weights"] == RAW]
            data, answers = self.problem.train, curve.answers[part]
            trained = data.truths[data.rows_of(curve.train)]
            if state_of_fold(task, losses, 1.0, trained, answers, truths) == collapse.COLLAPSED:
                curve.state = COLLAPSED
                curve.reason = "one answer" if task.one_answer(answers, truths) else f"a loss of {losses[-1]:.3g}"

    def _truths(self, curve: Curve) -> np.ndarray:
        data = self.problem.train
        found: np.ndarray = data.truths[data.rows_of(curve.validation)]
        return found

    def _rows(self, curve: Curve) -> int:
        """That it was trained on so far, each as often as it was."""
        return round(self.learner.done / self.learner.batches * len(curve.train))
