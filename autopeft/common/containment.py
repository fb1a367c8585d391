"""A plugin's code, contained: where it hangs or tries to end the process, its caller gets an error and goes on.

What is not its doing passes by its caller: errors of the host's own work in between, and of the machine.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from autopeft.common import machine
from autopeft.common.exceptions import HangError, HostError, MachineError, PluginError, StreamError
from autopeft.common.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TICKS, LONGEST_TICK = 50, 10.0
"""How often in the time of a silence it is looked at how long it has lasted; and seconds between looks at most."""

AGAIN = 1.0
"""Seconds until the alarm rings once more, where something swallowed it."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class _Silence:
    """How long the code that runs now may be silent, and has been: `last` and `cpu` are clocks at the latest look."""

    limit: float
    tick: float
    lasted: float = 0.0
    last: float = 0.0
    cpu: float = 0.0


_silence: _Silence | None = None
"""None where nothing is timed."""

_stood_still = 0.0
"""Seconds in which the process was found not to have run."""


class _AlarmError(BaseException):
    """The time is up. No `except Exception` on the way swallows it."""


@contextmanager
def guarded(seconds: float, *, memory: bool = True) -> Iterator[None]:
    """Run a plugin's code inside, which may be silent for so long: `heartbeat` is a sign of life.

    The main thread is interrupted between two of its Python instructions, and in waits that a signal ends, such as a
    sleep. What cannot be interrupted: compiled code that does not return, other threads than the main one, and
    anything on systems without interval timers (Windows). Inside another such block the outer one's time counts.
    Time in which the process did not run, since it was stopped or its machine slept, is no silence.

    Args:
        seconds: of silence.
        memory: whether memory that ran out is the machine's fault where that is short of it; a caller that asks by
            itself does so once what ran has let go of its own.

    Raises:
        HangError: it was silent for longer.
        PluginError: it called `sys.exit`.
        HostError: the machine failed, or what is `paused` inside; no `except Exception` of a caller takes it.
    """
    usual: Any = None
    timed = _silence is None and _can_time()
    try:
        try:
            if timed:
                usual = signal.signal(signal.SIGALRM, _ring)
                _set(_Silence(seconds, min(seconds / TICKS, LONGEST_TICK)))
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
    except Exception as error:
        if machine.reader_left(error):
            raise HostError(StreamError()) from error
        if why := machine.fault(error, memory=memory):
            raise HostError(MachineError(why)) from error
        raise


def heartbeat() -> None:
    """A sign of life: what runs contained made progress."""
    if _silence is not None:
        _start(_silence)


@contextmanager
def paused() -> Iterator[None]:
    """The host's own work in between, which nothing is to interrupt, and whose errors are nobody else's.

    Raises:
        HostError: around whatever it raised.
    """
    before = _silence
    _set(None)
    try:
        yield
    except (Exception, SystemExit) as error:
        raise HostError(error) from None
    finally:
        _set(before)


def by_host(work: Callable[P, T]) -> Callable[P, T]:
    """A function of the host's, for code that runs contained: `paused` while it runs."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with paused():
            return work(*args, **kwargs)

    return run


@contextmanager
def unguarded() -> Iterator[None]:
    """Around all that runs contained, in a block or of a whole function: what is not a plugin's doing comes out as is.

    Raises:
        Exception: what a HostError inside is around.
    """
    try:
        yield
    except HostError as passed:
        raise passed.error from passed.__cause__


def running_time() -> float:
    """Seconds on a clock that stands still while the process does, as far as contained code was running then."""
    return time.monotonic() - _stood_still


def _can_time() -> bool:
    """Whether this is the main thread of a system with interval timers, and nobody else uses the one there is."""
    main = threading.current_thread() is threading.main_thread()
    return main and hasattr(signal, "setitimer") and not signal.getitimer(signal.ITIMER_REAL)[0]


def _set(silence: _Silence | None) -> None:
    global _silence
    before, _silence = _silence, silence
    if silence:
        _start(silence)
    elif before:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _start(silence: _Silence) -> None:
    """Begin to count anew."""
    silence.lasted, silence.last, silence.cpu = 0.0, time.monotonic(), time.thread_time()
    signal.setitimer(signal.ITIMER_REAL, silence.tick, silence.tick)


def _ring(number: int, frame: object) -> None:
    """Look how long the silence has lasted.

    Several rings that come while the process is stopped become one. So a look counts as one tick, and as what the
    thread computed since the last one, in compiled code that lets no ring through; the rest was not run.
    """
    global _stood_still
    silence = _silence
    if silence is None:
        return
    now, cpu = time.monotonic(), time.thread_time()
    passed = now - silence.last
    counted = min(passed, silence.tick + cpu - silence.cpu)
    if passed - counted > silence.tick:
        _stood_still += passed - counted
    silence.lasted += counted
    silence.last, silence.cpu = now, cpu
    if silence.lasted > silence.limit - silence.tick / 2:
        signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        raise _AlarmError
