"""The folder of a Ray that a study starts: nobody else can look into it, and what a killed study left is removed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import BaseFileLock, FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "autopeft-ray-"
"""A folder's name begins with this, and goes on with the number of its process and what makes it the only one."""

NAME = re.compile(rf"{PREFIX}([1-9]\d{{0,8}})-[a-z0-9_]{{8}}")

PLACE = "/tmp" if os.name == "posix" else None
"""Where the folders are: names of Ray's sockets in them may have 107 characters."""

FOR_RAY = "r"
"""Ray's part of the folder. Ray opens it to everybody, so it is not the folder itself."""

HELD = "held"
"""A file that the process keeps locked: from another container its number may seem to be of no process."""


@contextmanager
def own_folder(place: str | None = PLACE) -> Iterator[Path]:
    """A folder for this block that only its user can look into; those that killed processes left are removed first."""
    if os.name == "posix":
        _tidy(Path(place or tempfile.gettempdir()))
    prefix = f"{PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as folder:
        lock = _lock(Path(folder))
        with suppress(OSError, NotImplementedError):  # not every file system has locks
            lock.acquire()
        try:
            yield Path(folder)
        finally:
            lock.release()


def _lock(folder: Path) -> BaseFileLock:
    return FileLock(folder / HELD, timeout=0, thread_local=False, fallback_to_soft=False)


def _tidy(place: Path) -> None:
    """Remove this user's folders whose processes are gone; one that cannot be removed does not matter."""
    with suppress(OSError):
        for folder in place.iterdir():
            with suppress(OSError, Timeout, NotImplementedError):  # somebody uses it, or it cannot be told
                if _is_left(folder):
                    with _lock(folder):
                        shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether it is a folder of this user that was made here, for a process that no longer runs."""
    made = NAME.fullmatch(folder.name)
    if not made or folder.is_symlink() or not folder.is_dir() or folder.stat().st_uid != os.getuid():
        return False
    try:
        os.kill(int(made[1]), 0)
    except ProcessLookupError:
        return True
    return False
