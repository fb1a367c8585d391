"""The processes of this machine, as Linux tells of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
DEAD = "ZX"
"""States of processes that have ended."""


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    return bool(found := _stat(pid)) and found[0] not in DEAD


def parent(pid: int) -> int | None:
    """The process that started it; None where it is gone."""
    return int(found[1]) if (found := _stat(pid)) else None


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    found = {pid: _stat(pid)[:3] for pid in _all()}
    return [pid for pid, stat in found.items() if stat[2:] == [str(leader)] and stat[0] not in DEAD]


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
