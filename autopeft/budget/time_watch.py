"""Keep a trial within `max_trial_seconds`: predict its time from its first steps, and stop it when the time is up."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from autopeft.budget.limits import predict_seconds
from autopeft.budget.memory_watch import ALWAYS_METERED
from autopeft.common.containment import running_time
from autopeft.common.exceptions import AutopeftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from autopeft.budget.limits import Budget
    from autopeft.training.learner import Learner

SKIPPED_STEPS = ALWAYS_METERED
"""First steps of a trial that are not timed: they are metered, and the device warms up."""

TIMED_STEPS = 10
"""Steps that are timed. Batches of all lengths come in shuffled order, so the mean of these stands for the rest."""

FORWARD_SHARE = 1 / 3
"""Share of a training step's time that an evaluation of as many rows takes: it has no backward pass."""


class OverTimeError(AutopeftError):
    """A trial would take, or took, longer than allowed."""


class TimeWatch:
    """Times the first steps of a trial; give it to a `Learner`.

    Args:
        budget: gives the limit.
        clock: in seconds; the trial begins when the watch is made. Time in which the process was stopped does not
            count.

    Attributes:
        predicted: seconds of the whole trial, once the first steps have been timed.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = running_time) -> None:
        self.budget, self._clock, self._started = budget, clock, clock()
        self.expect(1, 0.0)

    def expect(self, turns: int, evaluations: float) -> None:
        """Say what is about to run; time measured for an earlier way to run it counts only as spent.

        Args:
            turns: learners whose steps add up: one per fold, or one for all folds if packed.
            evaluations: batches that are only evaluated, of all folds and rungs together.
        """
        self.predicted: float | None = None
        self._turns, self._evaluations = turns, evaluations
        self._steps, self._to_come, self._timed = 0, 0, 0.0

    @contextmanager
    def __call__(self, learner: Learner, tokens: int) -> Iterator[None]:
        """Run one step of `learner`.

        Raises:
            OverTimeError: the trial would take, or took, longer than the limit.
        """
        if self._steps == 0:  # a resumed trial has fewer steps to come
            self._to_come = self._turns * (learner.steps - learner.done + 1)
        self._steps += 1
        timed = SKIPPED_STEPS < self._steps <= SKIPPED_STEPS + TIMED_STEPS
        entered = self._now(timed)
        yield
        if timed:
            self._timed += self._now(timed) - entered
        if self._steps == SKIPPED_STEPS + TIMED_STEPS:
            rest = self._to_come - self._steps + self._evaluations * FORWARD_SHARE
            self.predicted = predict_seconds(self._timed / TIMED_STEPS, rest, self.spent)
            _refuse(self.budget.seconds_reason(self.predicted))
        self.check()

    @property
    def spent(self) -> float:
        """Seconds since the trial began."""
        return self._clock() - self._started

    def check(self) -> None:
        """Stop a trial whose time is up.

        Raises:
            OverTimeError: it is.
        """
        _refuse(self.budget.seconds_reason(self.spent).replace("would take", "was stopped after"))

    def _now(self, exact: bool) -> float:
        """The clock; if it must be `exact`, after the device has finished its work."""
        if exact and torch.cuda.is_available():
            torch.cuda.synchronize()
        return self._clock()


def _refuse(reason: str) -> None:
    if reason:
        raise OverTimeError(reason)
