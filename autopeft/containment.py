"""A plugin's code, contained: where it hangs or tries to end the process, its caller gets an error and goes on."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from autopeft.exceptions import HangError, PluginError
from autopeft.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

AGAIN = 1.0
"""Seconds until the alarm rings once more, where something swallowed it."""

_silence: float | None = None
"""Seconds that the code which runs now may be silent; None where nothing is timed."""


class _AlarmError(BaseException):
    """The time is up. No `except Exception` on the way swallows it."""


@contextmanager
def contained(seconds: float) -> Iterator[None]:
    """Run a plugin's code inside, which may be silent for so long: `heard` is a sign of life.

    The main thread is interrupted between two of its Python instructions, and in waits that a signal ends, such as a
    sleep. What cannot be interrupted: compiled code that does not return, other threads than the main one, and
    anything on systems without interval timers (Windows). Inside another such block the outer one's time counts.

    Raises:
        HangError: it was silent for longer.
        PluginError: it called `sys.exit`.
    """
    usual: Any = None
    timed = _silence is None and _can_time()
    try:
        try:
            if timed:
                usual = signal.signal(signal.SIGALRM, _ring)
                _set(seconds)
            yield
        finally:
            if timed:
                _set(None)
                signal.signal(signal.SIGALRM, usual)
    except _AlarmError:
        if not timed:
            raise
        _set(None)  # it may have rung on the way out, before it was off
        signal.signal(signal.SIGALRM, usual)
        raise HangError(f"it made no progress for {format_seconds(seconds)}, and was interrupted.") from None
    except SystemExit as error:
        raise PluginError(f"it tried to end the process (SystemExit: {error.code}).") from None


def heard() -> None:
    """A sign of life: what runs contained made progress."""
    if _silence is not None:
        signal.setitimer(signal.ITIMER_REAL, _silence, AGAIN)


@contextmanager
def paused() -> Iterator[None]:
    """The host's own work in between, which nothing is to interrupt."""
    before = _silence
    _set(None)
    try:
        yield
    finally:
        _set(before)


def _can_time() -> bool:
    """Whether this is the main thread of a system with interval timers, and nobody else uses the one there is."""
    main = threading.current_thread() is threading.main_thread()
    return main and hasattr(signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]


def _set(seconds: float | None) -> None:
    global _silence
    before, _silence = _silence, seconds
    if before or seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds or 0, AGAIN if seconds else 0)


def _ring(number: int, frame: object) -> None:
    if _silence is not None:
        raise _AlarmError
