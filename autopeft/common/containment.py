"""Contains a plugin's code: if it hangs or tries to end the process, its caller gets an error and goes on.

Errors that are not the plugin's fault pass by that caller: those of the host's own work in between, and of the machine.
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
"""How often to check a silence during its allowed time; and the most seconds between two checks."""

AGAIN = 1.0
"""Seconds until the alarm rings again, in case something swallowed it."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class _Silence:
    """How long the running code may be silent, and how long it has been; `last` and `cpu`: clocks at the last check."""

    limit: float
    tick: float
    lasted: float = 0.0
    last: float = 0.0
    cpu: float = 0.0


_silence: _Silence | None = None
"""None while nothing is timed."""

_beats = 0
"""How often contained code said that it made progress, in any thread."""

_stood_still = 0.0
"""Seconds for which the process was found to be stopped."""

_listener: Callable[[], None] | None = None
"""Called at each sign of progress, guarded or not."""


class _AlarmError(BaseException):
    """The time is up. It is no `Exception`, so that no `except Exception` on the way swallows it."""


@contextmanager
def guarded(seconds: float, *, memory: bool = True) -> Iterator[None]:
    """Run a plugin's code in this block, with at most `seconds` of silence between two calls of `heartbeat`.

    The main thread is interrupted between two of its Python instructions, and in waits that a signal ends, such as a
    sleep. Compiled code that does not return, threads other than the main one, and anything on systems without interval
    timers (Windows) cannot be interrupted. In nested blocks the outer one's time counts. Time in which the process did
    not run, because it was stopped or its machine slept, does not count.

    Args:
        seconds: of silence.
        memory: whether memory that ran out is the machine's fault if the machine is short of it now. A caller that
            checks this itself does so once the code has released its own memory.

    Raises:
        HangError: it was silent for longer.
        PluginError: it called `sys.exit`.
        HostError: the machine failed, or code that is `paused` did; a caller's `except Exception` does not catch it.
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
        raise HangError(f"it made no progress for {format_seconds(seconds)} and was interrupted.") from None
    except SystemExit as error:
        raise PluginError(f"it tried to end the process (SystemExit: {error.code}).") from None
    except Exception as error:
        if machine.reader_left(error):
            raise HostError(StreamError()) from error
        if why := machine.fault(error, memory=memory):
            raise HostError(MachineError(why)) from error
        raise


def heartbeat() -> None:
    """Say that the contained code made progress."""
    global _beats
    _beats += 1
    if _silence is not None:
        _start(_silence)
    elif _listener:
        _listener()


def listen(listener: Callable[[], None]) -> None:
    """Have a function called at each sign of progress from now on: for a process that another one watches."""
    global _listener
    _listener = listener


def beats() -> int:
    """How often `heartbeat` was called in this process: for whoever watches code that runs in another thread."""
    return _beats


@contextmanager
def paused() -> Iterator[None]:
    """For the host's own work in between: it is not interrupted, and its errors are not the plugin's.

    Raises:
        HostError: it wraps whatever the block raised.
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
    """Wrap a function of the host that contained code may call: time is `paused` while it runs."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with paused():
            return work(*args, **kwargs)

    return run


@contextmanager
def unguarded() -> Iterator[None]:
    """Put this around contained code, as a block or a decorator: errors that are not a plugin's fault come out as is.

    Raises:
        Exception: what a HostError inside wraps.
    """
    try:
        yield
    except HostError as passed:
        raise passed.error from passed.__cause__


def running_time() -> float:
    """Seconds on a clock that stops while the process is stopped, if contained code was running then."""
    return time.monotonic() - _stood_still


def _can_time() -> bool:
    """Whether this is the main thread of a system with interval timers, and nobody else uses the only one."""
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
    """Start counting again."""
    if _listener:
        _listener()
    silence.lasted, silence.last, silence.cpu = 0.0, time.monotonic(), time.thread_time()
    signal.setitimer(signal.ITIMER_REAL, silence.tick, silence.tick)


def _ring(number: int, frame: object) -> None:
    """Check how long the silence has lasted.

    Several rings that come while the process is stopped become one. So a check counts one tick, plus what the thread
    computed since the last one, in compiled code that lets no ring through. In the rest the process did not run.
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
