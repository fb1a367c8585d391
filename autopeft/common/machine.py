"""Faults of the machine, not of a method: in its memory, its disks, its limits, and its output."""

from __future__ import annotations

import errno
import mmap
import re
import select
import sys
from typing import TYPE_CHECKING

from autopeft.common.exceptions import OverBudgetError, in_a_line

if TYPE_CHECKING:
    from collections.abc import Iterator

SPARE = 256 * 2**20
"""Bytes that a trial may take beyond its predicted need: for threads, kernels and libraries."""

MEMORY = re.compile(
    r"DefaultCPUAllocator|can(no|')t allocate memory|could not (create|execute|initialize) an? (primitive|memory)"
    r"|std::bad_alloc",
    re.IGNORECASE,
)
"""How PyTorch and oneDNN say, in a RuntimeError, that the system gave them no memory."""

THREADS = "can't start new thread"

ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within your quota of the disk",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "close programs that hold many files open on this machine",
    errno.EIO: "check the device that failed",
    errno.EROFS: "make the disk writable",
    errno.ESTALE: "mount the disk again",
}
"""What to do about an OSError that is not a method's fault, by its number."""

IN_TEXT = re.compile(r"\(os error (\d+)\)")
"""How libraries in Rust, safetensors among them, say the number of an OSError."""


def fault(error: BaseException, *, memory: bool = True) -> str:
    """What failed in the machine, and what to do about it, without a full stop; empty if it was something else.

    Memory that ran out counts only if the machine is short of it now; otherwise the code asked for too much.

    Args:
        error: raised by a method's code, or by the host's work on its results.
        memory: whether memory counts at all.
    """
    if memory and out_of_memory(error) and short_of_memory():
        return no_memory(in_a_line(error))
    for one in _chain(error):
        numbers = [one.errno] if isinstance(one, OSError) else map(int, IN_TEXT.findall(str(one)))
        for number in numbers:
            if number in ADVICE:
                return _sentence(in_a_line(one), ADVICE[number])
        if THREADS in str(one):
            return _sentence(in_a_line(one), "raise the limit of processes and threads (`ulimit -u`)")
    return ""


def no_memory(told: str) -> str:
    """The same for a machine that has no memory left, according to an error."""
    return _sentence(f"the machine has no memory left ({told})", "free some, or raise the limit (`ulimit -v`)")


def out_of_memory(error: BaseException) -> bool:
    """Whether the system, not a budget or a GPU, refused memory."""
    chain = list(_chain(error))
    return any(map(_refused, chain)) and not any(isinstance(one, OverBudgetError) for one in chain)


def short_of_memory(need: int = 0) -> bool:
    """Whether the system refuses twice this much and a reserve; the memory is asked for and given back at once."""
    try:
        mmap.mmap(-1, 2 * need + SPARE, **_PRIVATE).close()
    except (OSError, MemoryError, OverflowError):
        return True
    return False


def reader_left(error: BaseException) -> bool:
    """Whether an error means that nobody reads the output any more, as with `autopeft run … | head`."""
    return any(isinstance(one, BrokenPipeError) for one in _chain(error)) and any(map(_is_broken, _outputs()))


_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
"""Flags for ordinary memory, where a system has other kinds."""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that caused it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _refused(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(MEMORY.search(str(error))))


def _sentence(what: str, advice: str) -> str:
    return f"{what.rstrip('.')}; {advice}"


def _outputs() -> Iterator[int]:
    for stream in (sys.stdout, sys.stderr):
        try:
            yield stream.fileno()
        except (AttributeError, OSError, ValueError):  # none, closed, or something else in its place
            continue


def _is_broken(output: int) -> bool:
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(output, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
