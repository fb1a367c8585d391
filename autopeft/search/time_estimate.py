"""How long a search will take, estimated from a few steps of each method that are timed here and thrown away."""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from autopeft.budget.time_watch import FORWARD_SHARE
from autopeft.common.containment import guarded, unguarded
from autopeft.common.units import counted, format_seconds
from autopeft.models.attach import attach
from autopeft.models.modes import checkpoint_layers, train_mode
from autopeft.search import racing, start
from autopeft.training.learner import Learner
from autopeft.training.mixture import scheduled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate


WARM, TIMED = 2, 4
"""Number of steps that warm the device up, and of those that are timed, on batches of several lengths."""


class Pace(NamedTuple):
    """Seconds of a step of a method's default, and of everything before the steps of a trial."""

    step: float
    start: float


@dataclass(frozen=True)
class TimeEstimate:
    """How long a search will take on this machine.

    Attributes:
        steps: method → seconds of a step of its default, for one fold; only methods whose default fits and was timed.
        trials: number of trials in the search.
        least, most: seconds of the search with its race: if half of the trials are pruned at each rung, and if none is.
            The gain from folds and candidates that train in one pass, and from layers whose outputs are kept, is
            ignored.
        after: seconds of the refits of the winner and the defaults, on all training rows.
        timeout: of the study, in seconds; None if it has none.
    """

    steps: dict[str, float]
    trials: int
    least: float
    most: float
    after: float
    timeout: float | None

    def as_json(self) -> dict[str, Any]:
        """The estimate for a script."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """The estimate in sentences for a person."""
        each = ", ".join(f"{name} {1000 * seconds:,.0f} ms" for name, seconds in self.steps.items())
        told = [
            f"The search of {counted(self.trials, 'trial')} takes about {format_seconds(self.least)} if half of them "
            "are pruned at each rung, "
            f"and {format_seconds(self.most)} if none is pruned. The refits afterwards take about "
            f"{format_seconds(self.after)}.",
            f"This is a rough guess from {TIMED} timed steps of each default ({each} a step); other work on this "
            "machine changes it. It ignores what makes a search faster (packed folds, candidates in one pass, cached "
            "layers), and full fine-tuning at its end.",
        ]
        if self.timeout is not None and self.timeout < self.most:
            told.append(f"The timeout of {format_seconds(self.timeout)} may end the search before its last trial.")
        return told


@unguarded()
def estimate(problem: Problem, progress: Callable[[str], object] = lambda name: None) -> TimeEstimate | None:
    """Time a few steps of each method's default that is within the budget; None where none can be timed.

    Args:
        problem: the study's, whose model is loaded for this machine.
        progress: called with each method before it is timed.
    """
    paces: dict[str, Pace] = {}
    for name, part in problem.space.items():
        progress(name)
        try:
            with guarded(problem.spec.search.hang_timeout):
                if problem.budget.admits(problem.cost_estimator(part.default())):
                    paces[name] = _timed(problem, part.default())
        except Exception:  # a method may do anything; a study reports it
            continue
    if not paces:
        return None
    search = problem.spec.search
    first = [one.candidate for one in start.first(problem.spec, problem.space, len(problem.rows.train))[0]]
    defaults = [problem.space[name].default() for name in paces]
    timed = [candidate for candidate in first if candidate.name in paces] or defaults
    tried = list(itertools.islice(itertools.chain(timed, itertools.cycle(defaults)), search.trials))
    shared = (1 + racing.share(problem)) / problem.workers
    most = shared * sum(_trial(problem, candidate, paces, pruned=False) for candidate in tried)
    least = shared * sum(_trial(problem, candidate, paces, pruned=search.pruner != "none") for candidate in tried)
    folds = len(problem.folds)
    share = folds / (folds - 1) if folds > 1 else 1.0  # all rows, relative to those that a fold trains on
    refits = [share * _trial(problem, candidate, paces, pruned=False) / folds for candidate in defaults]
    return TimeEstimate(
        {name: pace.step for name, pace in paces.items()},
        search.trials,
        least,
        most,
        sum(refits) + max(refits),
        search.timeout,
    )


def _timed(problem: Problem, candidate: Candidate) -> Pace:
    """Start a trial of one fold and run some of its steps, on batches as in training."""
    started, device, data = time.perf_counter(), problem.device, problem.train
    usage = problem.cost_estimator(candidate)
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed).to(device.type)
    execution = replace(usage.execution, folds=1)
    if execution.checkpointing:
        checkpoint_layers(model)
    train_mode(model)
    rows, seed = problem.folds[0].train, problem.spec.seed
    callback = candidate.method.callback(model, candidate.params, problem.base.spec)
    learner = Learner(model, candidate.hyper, len(rows), execution, callback=callback, device=device)
    learner.take_turn()
    task, took = problem.task.trying(candidate.task), list[float]()
    batches = scheduled(task, data, rows, learner.batches, seed, seed)
    with torch.random.fork_rng():
        for chosen in itertools.islice(itertools.cycle(batches), WARM + TIMED):
            began = time.perf_counter()
            float(learner.step(learner.load(data, [rows[chosen]], device.type), task, device).sum())  # waits for it
            took.append(time.perf_counter() - began)
    step = sum(took[WARM:]) / TIMED
    return Pace(step, time.perf_counter() - started - (WARM + TIMED) * step)


def _trial(problem: Problem, candidate: Candidate, paces: Mapping[str, Pace], *, pruned: bool) -> float:
    """Seconds of a trial of all folds; if trials are `pruned`, the expected seconds if half go on at each rung."""
    name, epochs = candidate.name, candidate.hyper.epochs
    per_row = paces[name].step / problem.space[name].default().hyper.batch_size
    trained = sum(len(fold.train) for fold in problem.folds)
    judged = FORWARD_SHARE * sum(len(fold.validation) for fold in problem.folds)
    seconds, reach, before = paces[name].start, 1.0, 0.0
    for end in problem.rung_ends(epochs):
        seconds += reach * per_row * ((end - before) * trained + judged)
        before, reach = end, reach / 2 if pruned else reach
    return seconds
