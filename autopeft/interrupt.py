"""Ctrl-C that cannot get lost, SIGTERM the same, and SIGHUP, which a closed terminal sends.

Python drops an interrupt that arrives inside a weak reference's callback.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType


USUAL = {
    getattr(signal, name): handler
    for name, handler in (
        ("SIGINT", signal.default_int_handler),
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    )
    if hasattr(signal, name)  # Windows knows no SIGHUP
}
"""What Python does about the signals that end a program."""


class Interrupt:
    """Raises KeyboardInterrupt on any of `USUAL`, and again at the next `check` if something swallowed it."""

    def __init__(self) -> None:
        self._pressed = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set handlers, and one that the caller chose, to ignore it or otherwise, stays.
        if threading.current_thread() is threading.main_thread():
            for number, usual in USUAL.items():
                if signal.getsignal(number) is usual:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came."""
        if self._pressed:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        raise KeyboardInterrupt
