"""A file system of a few megabytes that only this process and its children see, so that a disk can be full for real."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
RECURSIVE, PRIVATE = 0x4000, 1 << 18


def mounted(folder: Path, megabytes: int) -> None:
    """Put an empty file system on a folder; it is gone with the last process that sees it.

    Call it in a forked child: from then on the process is in a mount namespace of its own, and, unless it is root's, in
    a user namespace too.

    Raises:
        OSError: the system does not allow it.
    """
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.geteuid(), os.getegid()
    _checked(libc.unshare(NEW_MOUNTS | (NEW_USER if user else 0)))
    if user:  # who it was stays its own, so that it may write
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _checked(libc.mount(b"none", b"/", None, RECURSIVE | PRIVATE, None))
    options = f"size={megabytes}m,mode=700".encode()
    _checked(libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, options))


def _checked(answer: int) -> None:
    if answer:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
