"""Writes a study's files and folders: whole or not at all, and never over somebody else's."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

DRAFT = re.compile(r"\..+\.(?P<pid>\d+)-[0-9a-f]{8}\.draft")
"""Names of drafts include the process that writes them. A draft that a killed process left belongs to nobody."""

IN_WORK = 60.0
"""Seconds for which a draft is kept if a process with its pid exists: in a container that may be another process."""


@contextmanager
def whole(path: Path, *, lasting: bool = False) -> Iterator[Path]:
    """A draft to write: it replaces `path` when the block ends, and is removed if the block raises.

    A reader of `path` sees the old file or the new one, never a part. The new file gets the rights of the user's umask,
    whatever rights the library that wrote it set.

    Args:
        path: in a folder that exists.
        lasting: wait until it is on the disk, so that a power cut cannot leave an empty file.
    """
    draft = _draft(path)
    try:
        draft.touch(exist_ok=False)
        mode = draft.stat().st_mode
        yield draft
        draft.chmod(mode & 0o777)
        if lasting:
            _flush(draft)
        draft.replace(path)
        if lasting:
            with suppress(OSError):  # some file systems cannot do that for a folder
                _flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to prepare its content in; it is removed when the block ends."""
    draft = _draft(path)
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def put(draft: Path, folder: Path, own: Collection[str], last: str) -> None:
    """Move the files of `draft` to `folder`, and remove what was written there before; other files stay.

    A folder that does not exist yet appears whole.

    Args:
        draft: a folder on the same file system.
        folder: where its files go.
        own: files that count as written before, besides those in `draft`: paths in `folder`. Files of the same names in
            other folders within it stay.
        last: name of the file without which the folder counts as unfinished: removed first and written last.
    """
    new = sorted((path.relative_to(draft) for path in _files(draft)), key=lambda path: path.name == last)
    mode = (draft / last).stat().st_mode & 0o777  # by the user's umask; some libraries write for the user alone
    for path in new:
        (draft / path).chmod(mode)
    if not os.path.lexists(folder):
        draft.rename(folder)
        return
    (folder / last).unlink(missing_ok=True)
    for path in sorted({*new, *map(Path, own)}):
        if os.path.lexists(folder / path):
            (folder / path).unlink()
    for path in new:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (draft / path).replace(folder / path)


def remove_drafts(*folders: Path) -> None:
    """Remove the drafts that killed processes left in these folders."""
    for folder in folders:
        for path in folder.glob(".*.draft"):
            if (found := DRAFT.fullmatch(path.name)) and not _in_work(path, int(found["pid"])):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.draft")


def is_alive(pid: int) -> bool:
    """Whether a process with that number runs on this machine, for any user."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        pass
    return True


def _in_work(path: Path, pid: int) -> bool:
    if not is_alive(pid):
        return False
    try:
        return time.time() - path.stat().st_mtime < IN_WORK  # noqa: TID251  # beside a file's time
    except OSError:  # it is gone by now
        return False


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
