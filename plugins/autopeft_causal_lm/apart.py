"""What a chat template does, in a process of its own, where it may take so much time and memory and no more.

A template comes with a model, and Jinja's sandbox bounds neither: a product of a text and a number may fill the memory,
and a power keep the processor busy for years, within one instruction that no signal reaches. The process is forked, so
it has at once what the study has, and gives back what it made of each row. On macOS and Windows nothing is bounded.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import warnings
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from autopeft import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from multiprocessing.connection import Connection

R = TypeVar("R")
T = TypeVar("T")

SECONDS = 20
"""Of the processor, for one row."""

MEMORY = 2**30
"""Bytes, on top of what the study has."""

LONGEST = 600.0
"""Seconds until something must come, on however busy a machine."""

MEMORY_NOW = Path("/proc/self/statm")


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What `work` makes of each item.

    Args:
        work: fills in a template; what it changes is lost.
        items: such as rows.

    Raises:
        SpecError: it takes more time or memory for one than a template may.
        Exception: whatever `work` raises.
    """
    reader, writer = Pipe(duplex=False)
    child = _forked() if items else None
    if child is None:
        return [work(item) for item in items]
    if not child:
        _become(work, items, writer)
    writer.close()
    found: list[R] = []
    try:
        while len(found) < len(items) and reader.poll(LONGEST):
            error, made = reader.recv()
            if error:
                raise error
            found.append(made)
    except EOFError:
        pass  # it ended before its work did
    except MemoryError:
        rule = f"make do with {MEMORY / 2**30:.2g} GiB of memory"
        raise _failed(rule, "for some conversation it asks for more") from None
    finally:
        reader.close()
        status = _end(child)
    if len(found) < len(items):
        by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if by == signal.SIGXCPU:
            raise _failed("come to an end", f"it took more than {SECONDS} seconds for one conversation")
        raise _failed("be filled in", f"the process that did so ended before (signal {by}), as where memory runs out")
    return found


def _end(child: int) -> int:
    """End a process and return its status; 0 where the system tells nobody."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]
    return 0


def _forked() -> int | None:
    """The number of a new process, in which it is 0; None where there can be none."""
    if not hasattr(os, "fork") or sys.platform == "darwin":  # whose libraries do not bear it
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, whose locks nothing here asks for
        with suppress(OSError):
            return os.fork()
    return None


def _become(work: Callable[[T], R], items: Iterable[T], writer: Connection) -> None:
    """Be the process that does the work; does not return."""
    try:
        gc.disable()  # what is garbage is the study's to end
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _bound_memory()
        for item in items:
            _bound_time()
            try:
                made: tuple[Exception | None, Any] = None, work(item)
            except Exception as error:  # raised again where it was asked for
                made = error.with_traceback(None), None
            writer.send(made)
            if made[0]:
                break
        writer.close()
    finally:
        os._exit(0)


def _bound_memory() -> None:
    import resource

    with suppress(OSError, ValueError):  # a system that does not say what it has taken, or knows no such limit
        pages = int(MEMORY_NOW.read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY)
    _lower(resource.RLIMIT_CORE, 0)


def _bound_time() -> None:
    import resource

    _lower(resource.RLIMIT_CPU, int(time.process_time()) + 1 + SECONDS)


def _lower(what: int, limit: int) -> None:
    import resource

    _, most = resource.getrlimit(what)
    resource.setrlimit(what, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _failed(rule: str, found: str) -> SpecError:
    return SpecError(f"the chat template must {rule}, but {found}; give another `template` in [task].")
