"""Trials in the process of the search, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from autopeft.execution.backend import Backend, TrialHandle
from autopeft.execution.leak_check import LeakCheck
from autopeft.execution.runner import Findings, Runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from autopeft.execution.problem import Problem


class InProcess(Backend):
    """Runs each trial to its end as it is given.

    Args:
        problem: the study's.
        known: returns what trials need not find out again.
        say: gets sentences for the user.
    """

    free, busy = True, False

    def __init__(self, problem: Problem, known: Callable[[], Findings], say: Callable[[str], None]) -> None:
        self._problem, self._known, self._say = problem, known, say
        self._leak_check = LeakCheck()

    def give(self, trial: TrialHandle) -> None:
        """Run it."""
        trial.end(self._runner(trial.candidate, trial))

    def poll(self) -> None:
        """Nothing runs in the background."""

    def __enter__(self) -> Self:
        self._leak_check.__enter__()
        self._runner = Runner(self._problem, self._say, self._known(), self._leak_check)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leak_check.__exit__(kind, error, trace)
