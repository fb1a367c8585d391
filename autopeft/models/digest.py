"""The identity of a base model: it shows if the model of a study and its winner was replaced by another.

For a folder it is a SHA-256 of the files that decide what the model predicts: the weights, `config.json`, which decides
how they are combined (an activation, an epsilon, the number of heads), the tokenizer's files, since other tokens are
another input, and code that comes with the model. Notes, licences and settings of text generation do not count. Bytes
are compared: the same weights in other files, or a configuration in another order, are another model here, since one
alarm too many is better than one too few. For a model on the hub it is the commit, which in git is a hash of all its
files.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import ModelError, in_a_line
from autopeft.common.locate import LOCAL, ON_HUB
from autopeft.models.files import decisive, examine

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILES, COMMIT = "sha256:", "commit:"
"""How an identity begins, for a folder and for a model on the hub."""

PIECE = 2**23
"""Bytes of a piece. Pieces are hashed separately, on all cores: one core does 0.2 to 2 GB per second, depending on its
instructions, and a model may have 15 GB."""

THREADS = 8

SETTLED = 2.0
"""Seconds since the last change after which a file's times distinguish it from a later version: clocks of file systems
are coarse. git's index follows the same rule."""

_known: dict[Path, tuple[tuple[tuple[Any, ...], ...], str]] = {}
"""Folders read before in this process: their files' names, inode numbers, sizes and times, and the identity. Among the
times is the inode's last change, which no program can set back. It is not kept for other processes."""


def of(location: Path | str, revision: str | None = None) -> str:
    """The identity of a model: `sha256:…` for a folder; `commit:…` for a hub id at that commit, "" if none is known.

    Raises:
        ModelError: the folder holds no model that can be read (`files.examine`).
    """
    if isinstance(location, str):
        return f"{COMMIT}{revision}" if revision else ""
    examine(location)
    try:
        files = list(decisive(location))
        seen, now = _seen(files), time.time()  # noqa: TID251  # beside times of files
        if location in _known and _known[location][0] == seen:
            return _known[location][1]
        found = FILES + _hashed(files, location)
        settled = all(now - max(times) > SETTLED for *_, times in seen)
        if settled and _seen(files) == seen:
            _known[location] = seen, found
    except OSError as error:
        raise ModelError(f"[model] name_or_path: {location} cannot be read: {in_a_line(error)}.") from None
    return found


def kind_of(identity: str) -> str | None:
    """The kind of reference that a model with this identity had, `LOCAL` or `ON_HUB`; None if unknown."""
    return {FILES: LOCAL, COMMIT: ON_HUB}.get(identity.partition(":")[0] + ":")


def revision_of(identity: str) -> str | None:
    """The commit of a model on the hub."""
    return identity.removeprefix(COMMIT) if identity.startswith(COMMIT) else None


def _seen(files: Iterable[Path]) -> tuple[tuple[Any, ...], ...]:
    """What distinguishes files from later ones with the same names, without reading them; times come last."""
    found = []
    for path in files:
        status = path.stat()
        times = (status.st_mtime, status.st_ctime)
        found.append(
            (path.name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, times)
        )
    return tuple(found)


def _hashed(files: Iterable[Path], folder: Path) -> str:
    """A hash of the files' names, sizes and pieces."""
    whole = hashlib.sha256()
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as threads:
        for path in files:
            size = path.stat().st_size
            whole.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode("utf-8", "surrogateescape"))
            for piece in threads.map(functools.partial(_piece, path), range(0, size, PIECE)):
                whole.update(piece)
    return whole.hexdigest()


def _piece(path: Path, start: int) -> bytes:
    """The SHA-256 of `PIECE` bytes of a file, or of the rest if that is less."""
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read(PIECE)).digest()
