"""The user's functions that are called with every trial as it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Self

from autopeft.common.exceptions import UserInputError, shorten
from autopeft.study.record import TrialRecord
from autopeft.study.states import INTERRUPTED

if TYPE_CHECKING:
    from types import TracebackType

    from autopeft.budget.limits import Budget
    from autopeft.budget.usage import Usage
    from autopeft.common.params import ParamValue
    from autopeft.methods.candidate import Candidate
    from autopeft.reporting.progress import Progress
    from autopeft.study.phase import Phase
    from autopeft.training.rungs import Rung

TrialCallback = Callable[[TrialRecord], object]
"""Called after each trial with its record, whatever its `state`; what it returns is ignored."""


def checked(callbacks: Iterable[TrialCallback]) -> tuple[TrialCallback, ...]:
    """The callbacks, checked.

    Raises:
        UserInputError: they are not a list, or one of them cannot be called.
    """
    rule = "`callbacks` must be a list of functions, each of which takes a trial's record"
    if callable(callbacks) or not isinstance(callbacks, Iterable):
        raise UserInputError(f"{rule}, but got {shorten(callbacks)}; put it into a list.")
    found = tuple(callbacks)
    for one in found:
        if not callable(one):
            raise UserInputError(f"{rule}, but one of them is {shorten(one)}.")
    return found


class CallingProgress:
    """Shows what another progress shows, and calls functions after each trial.

    A trial that the machine interrupted and that runs again has not ended. A trial is saved completely before they are
    called, so an error in one of them ends the study but loses nothing.
    """

    def __init__(self, shown: Progress, callbacks: Iterable[TrialCallback]) -> None:
        self._shown, self._callbacks = shown, tuple(callbacks)

    def __enter__(self) -> Self:
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        """Pass it on."""
        self._shown.say(text)

    def begun(self, wanted: int, defaults: Mapping[str, ParamValue], deadline: float | None) -> None:
        """Pass it on."""
        self._shown.begun(wanted, defaults, deadline)

    def entered(self, phase: Phase) -> None:
        """Pass it on."""
        self._shown.entered(phase)

    def started(self, number: int, candidate: Candidate, usage: Usage, budget: Budget, done: int, wanted: int) -> None:
        """Pass it on."""
        self._shown.started(number, candidate, usage, budget, done, wanted)

    def rung(self, number: int, rung: Rung) -> None:
        """Pass it on."""
        self._shown.rung(number, rung)

    def finished(self, record: TrialRecord) -> None:
        """Pass it on, then call each function."""
        self._shown.finished(record)
        if record.state != INTERRUPTED:
            for callback in self._callbacks:
                callback(record)
