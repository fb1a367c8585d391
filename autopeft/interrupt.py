"""Ctrl-C that cannot get lost, and SIGTERM the same.

Python drops an interrupt that arrives inside a weak reference's callback.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import FrameType


class Interrupt:
    """Raises KeyboardInterrupt on Ctrl-C and SIGTERM, and again at the next `check` if something swallowed it.

    Args:
        more: signals that are to do the same, beside their default of ending the process.
    """

    def __init__(self, *more: int) -> None:
        self._pressed = False
        self._usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        self._usual |= dict.fromkeys(more, signal.SIG_DFL)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set handlers, and one that the caller chose, to ignore it or otherwise, stays.
        if threading.current_thread() is threading.main_thread():
            for number, usual in self._usual.items():
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
