"""Fills in a chat template in a process of its own, with limits on time and memory.

A template comes with a model, and Jinja's sandbox limits neither: multiplying a text by a number may fill the memory,
and a power may keep the processor busy for years, within one instruction that no signal can interrupt. The process is
forked, so it has the study's data at once, and returns a result for each row. macOS and Windows have no such limits.
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
"""Processor time for one row."""

MEMORY = 2**30
"""Bytes beyond what the study already uses."""

LONGEST = 600.0
"""Seconds until the next result must arrive, however busy the machine is."""

MEMORY_NOW = Path("/proc/self/statm")


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The result of `work` for each item.

    Args:
        work: fills in a template; its side effects are lost.
        items: such as rows.

    Raises:
        SpecError: it takes more time or memory for one item than a template may.
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
        pass  # the process ended before its work was done
    except MemoryError:
        rule = f"run in {MEMORY / 2**30:.2g} GiB of memory"
        raise _failed(rule, "for one of the conversations it needs more") from None
    finally:
        reader.close()
        status = _end(child)
    if len(found) < len(items):
        by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if by == signal.SIGXCPU:
            raise _failed("finish", f"it took more than {SECONDS} seconds for one conversation")
        raise _failed("finish", f"its process ended early (signal {by}), as it does if memory runs out")
    return found


def _end(child: int) -> int:
    """End a process and return its status; 0 if the system does not report it."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGKILL)
        return os.waitpid(child, 0)[1]
    return 0


def _forked() -> int | None:
    """The number of a new process (0 in that process itself); None if the system cannot fork."""
    if not hasattr(os, "fork") or sys.platform == "darwin":  # libraries of macOS break after a fork
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is about threads, whose locks are not used here
        with suppress(OSError):
            return os.fork()
    return None


def _become(work: Callable[[T], R], items: Iterable[T], writer: Connection) -> None:
    """Do the work in the new process; does not return."""
    try:
        gc.disable()  # the study itself cleans up its garbage
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _bound_memory()
        for item in items:
            _bound_time()
            try:
                made: tuple[Exception | None, Any] = None, work(item)
            except Exception as error:  # `each` raises it again
                made = error.with_traceback(None), None
            writer.send(made)
            if made[0]:
                break
        writer.close()
    finally:
        os._exit(0)


def _bound_memory() -> None:
    import resource

    with suppress(OSError, ValueError):  # a system that does not report memory in use, or has no such limit
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
