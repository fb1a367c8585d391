"""The processes of this machine, as Linux tells of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def parent(pid: int) -> int | None:
    """The process that started it; None where it is gone."""
    return int(found[1]) if (found := _stat(pid)) else None


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    return [pid for pid in _all() if alive(pid) and _stat(pid)[2:3] == [str(leader)]]


def descendants(pid: int) -> list[int]:
    """A process, those that it started, those that these started, and so on."""
    parents = {one: parent(one) for one in _all()}
    found = [pid]
    for one in found:
        found += [child for child, its in parents.items() if its == one]
    return found


def command(pid: int) -> str:
    """Its command line, with NUL between words; "" where it is gone."""
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_text()
    return ""


def _all() -> list[int]:
    return [int(entry.name) for entry in PROC.glob("[0-9]*")]


def _stat(pid: int) -> list[str]:
    """Its state, parent, group and so on, as text; nothing where it is gone."""
    with suppress(OSError):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []
