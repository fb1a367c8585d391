"""Whether a worker process still makes progress, which the study's process sees without asking it.

A method that hangs in Python is interrupted in the worker itself (`common.containment`). A call into compiled code that
does not return, such as one that waits for a GPU that is lost, can only be ended from outside, with its process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

ALLOWANCE = 2
"""How many times `hang_timeout` a worker may make no progress: its own alarm ends a method's code after one."""

PREPARATION_SECONDS = 1800.0
"""The least time that a worker may take for the rows and the model; it makes no signs of life before it has them."""


class Pulse:
    """Counts the signs of life of one process, in memory that it shares with the one that started it."""

    def __init__(self, context: BaseContext) -> None:
        self._count = context.RawValue("Q", 0)

    def beat(self) -> None:
        """Count one more; for the process that is watched."""
        self._count.value += 1

    @property
    def beats(self) -> int:
        """How many there were."""
        return int(self._count.value)


class Silence:
    """How long a process has made no progress; for the process that watches.

    Args:
        pulse: of the other process.
        hang_timeout: seconds, as in the study file.

    Attributes:
        seconds: since its last sign of life, without time in which the watching process did not run.
    """

    def __init__(self, pulse: Pulse, hang_timeout: float) -> None:
        self._pulse, self._hang_timeout = pulse, hang_timeout
        self.seconds, self._beats = 0.0, 0

    def lasts(self, seconds: float) -> None:
        """Note that so much time went by, unless there was a sign of life in it."""
        beats = self._pulse.beats
        self.seconds = 0.0 if beats != self._beats else self.seconds + seconds
        self._beats = beats

    def broken(self) -> None:
        """Note that the process was heard of in another way."""
        self.seconds = 0.0

    def allowed(self, *, prepared: bool) -> float:
        """Most seconds of it, for a process that trains, or else one that still loads the study's rows and model."""
        bound = ALLOWANCE * self._hang_timeout
        return bound if prepared else max(bound, PREPARATION_SECONDS)
