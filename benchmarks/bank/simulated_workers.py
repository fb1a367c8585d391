"""Workers that do not exist: trials go from rung to rung on a simulated clock, along the curves of a surrogate."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from autopeft.execution.backend import Backend, TrialHandle
from autopeft.execution.outcome import Outcome
from autopeft.study.states import COMPLETE, PRUNED
from autopeft.training.rungs import Rung

if TYPE_CHECKING:
    from collections.abc import Callable

    from surrogate import Surrogate

    from autopeft.execution.problem import Problem

SPREAD = 0.2
"""Deviation of the logarithm of a trial's speed: no two trials of real workers take the same time."""


@dataclass(order=True)
class Running:
    """A trial on a worker: when it reaches its next rung, and its rungs so far."""

    at: float
    number: int
    trial: TrialHandle = field(compare=False)
    ends: list[float] = field(compare=False)
    scores: list[float] = field(compare=False)
    pace: float = field(compare=False)
    reached: list[Rung] = field(compare=False, default_factory=list)


class Simulated(Backend):
    """A backend for `Search` whose workers only count time; everything else of the search is real.

    Args:
        problem: the study's.
        count: of workers.
        surrogate: says what trials score.
        seconds: that an epoch of all folds takes at the usual speed, on the simulated clock.
        clock: of this machine, in seconds.
        charged: whether the simulated clock goes on by it while the search's own process draws, reports and records,
            which in a real study keeps workers waiting. Then the order of events depends on this machine; otherwise it
            does not.

    Attributes:
        now: seconds on the simulated clock.
        epochs: that all trials trained.
        trained: seconds that this took the workers, without what they waited.
        aside: seconds of this machine that this class took itself, which no real search would.
    """

    def __init__(
        self,
        problem: Problem,
        count: int,
        surrogate: Surrogate,
        seconds: float,
        clock: Callable[[], float],
        *,
        charged: bool,
    ) -> None:
        self._problem, self._count, self._surrogate = problem, count, surrogate
        self._seconds, self.clock, self._charged = seconds, clock, charged
        self._events: list[Running] = []
        self._usages = {name: problem.cost_estimator(part.default()) for name, part in problem.space.items()}
        for usage in self._usages.values():
            _ = usage.weights, usage.memory  # a worker tells them
        self._given, self._left = 0, clock()
        self.now = self.epochs = self.trained = self.aside = 0.0

    @property
    def free(self) -> bool:
        """Whether a worker waits."""
        return len(self._events) < self._count

    @property
    def busy(self) -> bool:
        """Whether a trial runs."""
        return bool(self._events)

    def give(self, trial: TrialHandle) -> None:
        """Start a trial."""
        usage = self._usages[trial.candidate.name]
        trial.estimated(usage)
        trial.started(usage)
        self._charge()
        began = self.clock()
        epochs = trial.candidate.hyper.epochs
        ends = self._problem.rung_ends(epochs)
        pace = self._seconds * float(np.exp(np.random.default_rng(self._given).normal(0.0, SPREAD)))
        scores = self._surrogate.scores(trial.candidate, ends)
        self._push(Running(self.now, self._given, trial, ends, scores, pace))
        self._given += 1
        self._took(began)

    def poll(self) -> None:
        """Turn the clock on to the next rung that any trial reaches, and report it."""
        self._charge()
        began = self.clock()
        running = heapq.heappop(self._events)
        self.now = max(self.now, running.at)
        place, folds = len(running.reached), len(self._problem.folds)
        score = running.scores[place]
        rung = Rung(place + 1, running.ends[place], (score,) * folds, 1.0, ("",) * folds, (1.0,) * folds)
        running.reached.append(rung)
        self._took(began)
        reason = running.trial.rung(rung)
        last = len(running.reached) == len(running.ends)
        if reason is None and not last:
            self._charge()
            self._push(running)
            return
        self.epochs += rung.epoch
        self.trained += rung.epoch * running.pace
        state, why = (COMPLETE, "") if last else (PRUNED, reason or "")
        running.trial.end(Outcome(state, why, tuple(running.reached), seconds=rung.epoch * running.pace))

    def _push(self, running: Running) -> None:
        """Have a trial train to its next rung."""
        before = running.reached[-1].epoch if running.reached else 0.0
        running.at = self.now + (running.ends[len(running.reached)] - before) * running.pace
        heapq.heappush(self._events, running)

    def _charge(self) -> None:
        """Let the clock go on by the time that the search took since it was left or last charged."""
        now = self.clock()
        passed, self._left = now - self._left, now
        if self._charged:
            self.now += passed

    def _took(self, began: float) -> None:
        """Count time of this class itself, which is not charged."""
        self._left = self.clock()
        self.aside += self._left - began

    def __exit__(self, *_: object) -> None:
        """Nothing is left running."""
