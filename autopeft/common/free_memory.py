"""How much memory this process may still take: of the machine, of its control group, and of its own limit."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
FIRST = ("memory.limit_in_bytes", "memory.usage_in_bytes")
SECOND = ("memory.max", "memory.current")
"""Files with a group's limit and with its usage, in both versions of control groups."""


def free_memory() -> float:
    """Bytes that can be taken before the machine or a limit ends this process; infinite where that is unknown.

    The smallest of three: what the kernel calls available, what a control group (a container, a batch system's job)
    leaves, and what the process's limit of address space leaves.
    """
    return max(0, min(_machine(), _control_group(), _address_space()))


def _machine() -> float:
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return float("inf")


def _control_group() -> float:
    """What is left in this process's group and in every group around it, in both versions of control groups."""
    left = float("inf")
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root = GROUPS if kinds == "" else GROUPS / "memory"
            names = SECOND if kinds == "" else FIRST
            inner = Path(path.lstrip("/"))
            for folder in (root / inner, *(root / parent for parent in inner.parents)):
                left = min(left, _left_in(folder, *names))
    return left


def _left_in(folder: Path, limit: str, usage: str) -> float:
    """What is left in one group; cached files that the kernel can drop at once do not count as used."""
    with suppress(OSError, ValueError):
        most = int((folder / limit).read_text(encoding="ascii"))  # "max" where there is none
        used = int((folder / usage).read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return most - used + int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
    return float("inf")


def _address_space() -> float:
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            return most - pages * resource.getpagesize()
    return float("inf")
