"""How long a search will take, from a few steps of each method that are timed here and thrown away."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft.budget.time_watch import FORWARD_SHARE
from autopeft.common.containment import guarded, unguarded
from autopeft.common.units import format_seconds
from autopeft.execution.precision import seconds_of_step
from autopeft.search import racing, start
from autopeft.training.batch import bucketed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate


@dataclass(frozen=True)
class TimeEstimate:
    """How long a search will take on this machine.

    Attributes:
        steps: method → seconds of a step of its default, of one fold; of methods whose default fits and could be timed.
        trials: that are searched.
        least, most: seconds of the search with its race: where half of the trials are pruned at each rung, and where
            none is. Folds that train in one pass, and layers whose outputs are kept, are left out of account.
        after: seconds of the winner's refit and the defaults', on all training rows.
        timeout: of the study, in seconds; None: it has none.
    """

    steps: dict[str, float]
    trials: int
    least: float
    most: float
    after: float
    timeout: float | None

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """What a person should know of it."""
        each = ", ".join(f"{name} {1000 * seconds:,.0f} ms" for name, seconds in self.steps.items())
        told = [
            f"The search of {self.trials} trials takes about {format_seconds(self.least)} if half of them are pruned "
            f"at each rung, and {format_seconds(self.most)} if none is; afterwards the refits take about "
            f"{format_seconds(self.after)}.",
            f"This is from a few timed steps of each default ({each} a step) and may be off by a factor of two. It "
            "leaves out what makes a search faster (packed folds, kept layers) and full fine-tuning at its end.",
        ]
        if self.timeout is not None and self.timeout < self.most:
            told.append(f"The timeout of {format_seconds(self.timeout)} may end the search before its last trial.")
        return told


@unguarded()
def estimate(problem: Problem, progress: Callable[[str], object] = lambda name: None) -> TimeEstimate | None:
    """Time a few steps of each method's default, where it is within the budget; None where none can be timed.

    Args:
        problem: the study's, whose model is loaded for this machine.
        progress: told each method before it is timed.
    """
    steps: dict[str, float] = {}
    for name, part in problem.space.items():
        progress(name)
        try:
            with guarded(problem.spec.search.hang_timeout):
                if problem.budget.admits(problem.cost_estimator(part.default())):
                    steps[name] = _seconds(problem, part.default())
        except Exception:  # a method may do anything; a study tells it
            continue
    if not steps:
        return None
    search = problem.spec.search
    first = [one.candidate for one in start.first(problem.spec, problem.space, len(problem.rows.train))[0]]
    defaults = [problem.space[name].default() for name in steps]
    timed = [candidate for candidate in first if candidate.name in steps] or defaults
    tried = list(itertools.islice(itertools.chain(timed, itertools.cycle(defaults)), search.trials))
    shared = (1 + racing.share(problem)) / problem.workers
    most = shared * sum(_trial(problem, candidate, steps, pruned=False) for candidate in tried)
    least = shared * sum(_trial(problem, candidate, steps, pruned=search.pruner != "none") for candidate in tried)
    folds = len(problem.folds)
    share = folds / (folds - 1) if folds > 1 else 1.0  # all rows, beside those that a fold trains on
    refits = [share * _trial(problem, candidate, steps, pruned=False) / folds for candidate in defaults]
    return TimeEstimate(steps, search.trials, least, most, sum(refits) + max(refits), search.timeout)


def _seconds(problem: Problem, candidate: Candidate) -> float:
    """Of a step at a batch of the usual length."""
    rows, size = problem.folds[0].train, candidate.hyper.batch_size
    seed = problem.spec.seed
    batches = bucketed(problem.train.extents[rows], -(-len(rows) // size), seed, seed)
    places = [problem.train.places_of(rows[chosen]) for chosen in batches]
    return seconds_of_step(problem, candidate, problem.device) * float(np.mean(places)) / places[0]


def _trial(problem: Problem, candidate: Candidate, steps: Mapping[str, float], *, pruned: bool) -> float:
    """Seconds of a trial of all folds; where trials are pruned, what is expected of one if half go on at each rung."""
    name, epochs = candidate.name, candidate.hyper.epochs
    per_row = steps[name] / problem.space[name].default().hyper.batch_size
    trained = sum(len(fold.train) for fold in problem.folds)
    judged = FORWARD_SHARE * sum(len(fold.validation) for fold in problem.folds)
    seconds, reach, before = 0.0, 1.0, 0.0
    for end in problem.rung_ends(epochs):
        seconds += reach * per_row * ((end - before) * trained + judged)
        before, reach = end, reach / 2 if pruned else reach
    return seconds
