"""Ctrl-C, SIGTERM and SIGHUP that cannot get lost, nor what a caller's own handlers raise.

Python itself drops an interrupt that arrives inside a weak reference's callback.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

from autopeft.common.exceptions import HostError

if TYPE_CHECKING:
    from types import FrameType, TracebackType


class Interrupt:
    """Raises KeyboardInterrupt on Ctrl-C, SIGTERM and SIGHUP, and again at the next `check` if something swallowed it.

    A signal that the caller ignores, as `nohup` ignores SIGHUP, stays ignored. One that the caller handles stays with
    that handler; what it raises does not count as an error of the running code. SIGQUIT still ends the process.

    Args:
        more: signals that should do the same instead of ending the process.
    """

    def __init__(self, *more: int) -> None:
        self._raised: BaseException | None = None
        self._usual: dict[int, Any] = dict.fromkeys((*_known("SIGTERM", "SIGHUP"), *more), signal.SIG_DFL)
        self._usual[signal.SIGINT] = signal.default_int_handler
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number in {*self._usual, *_known("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGXCPU")}:
                before = signal.getsignal(number)
                if number in self._usual and before is self._usual[number]:
                    self._before[number] = signal.signal(number, self._handle)
                elif callable(before) and before is not signal.default_int_handler:
                    self._before[number] = signal.signal(number, self._relay)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, HostError):
            raise error.error from error.__cause__

    def check(self) -> None:
        """Raise what a signal raised, if one came."""
        if self._raised:
            raise self._raised

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._raised = KeyboardInterrupt()
        raise self._raised

    def _relay(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal to the caller's handler."""
        try:
            self._before[number](number, frame)
        except BaseException as error:
            self._raised = error
            raise HostError(error) from None


def _known(*names: str) -> list[int]:
    """The signals of those names that this system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
