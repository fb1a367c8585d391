"""A cache on disk, kept between studies: entries are found by a digest of all they depend on, and never relied upon.

An entry that is missing, damaged or unreadable counts as absent. If the folder cannot be written, nothing is cached.
Once all entries take more than `LIMIT` bytes, those used longest ago are removed.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError
from autopeft.common.rights import follow_umask

LIMIT = 2**30
"""Bytes that all entries together may take."""

ENTRY = re.compile(r"[0-9a-f]{64}(\..*)?")
"""Names of entries and of their drafts: nothing else in the folder is ever touched."""

DIGEST = hashlib.sha256().digest_size


def folder() -> Path:
    """`$AUTOPEFT_CACHE`, else `autopeft` in `$XDG_CACHE_HOME`, else `~/.cache/autopeft`.

    Raises:
        RuntimeError: none is set and the user has no home folder.
    """
    own, shared = os.environ.get("AUTOPEFT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).expanduser() if own else (Path(shared) if shared else Path.home() / ".cache") / "autopeft"


def key(*parts: str) -> str:
    """The name of an entry that depends on `parts`, in that order."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def read(name: str) -> bytes | None:
    """The content kept under that key; None where there is none, or it is incomplete."""
    with suppress(OSError, RuntimeError, UserInputError):
        path = folder() / name
        raw = plain_file.read(path, LIMIT)
        if hashlib.sha256(raw[DIGEST:]).digest() == raw[:DIGEST]:
            os.utime(path)  # marks it as used now
            return raw[DIGEST:]
    return None


def keep(name: str, content: bytes) -> None:
    """Keep `content` under that key: whole or not at all, and not where the folder cannot be written."""
    with suppress(OSError, RuntimeError):
        place = folder()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is kept may tell of the user's rows
        with tempfile.NamedTemporaryFile(dir=place, prefix=f"{name}.", delete=False) as draft:
            try:
                draft.write(hashlib.sha256(content).digest() + content)
                draft.close()
                follow_umask(Path(draft.name))
                Path(draft.name).replace(place / name)
            finally:
                Path(draft.name).unlink(missing_ok=True)
        _trim(place)


def _trim(place: Path) -> None:
    """Remove the entries used longest ago until the rest is within the limit."""
    entries = [(path, path.stat()) for path in place.iterdir() if ENTRY.fullmatch(path.name)]
    total = sum(status.st_size for _, status in entries)
    for path, status in sorted(entries, key=lambda entry: entry[1].st_mtime_ns):
        if total <= LIMIT:
            return
        path.unlink(missing_ok=True)
        total -= status.st_size
