"""Gives all files that a study writes the rights of the user's umask.

Libraries that write a draft first, such as safetensors and tempfile, let only its owner read the file. A service that
runs as another user could then not read a winner's weights, although it can read all other files.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path


def follow_umask(*places: Path) -> None:
    """Give files, and folders with their content, the rights of new ones, if the file system keeps rights."""
    with tempfile.TemporaryDirectory() as folder:  # the umask cannot be read without setting it for every thread
        file, inner = Path(folder) / "file", Path(folder) / "folder"
        file.touch()
        inner.mkdir()
        rights = {False: file.stat().st_mode & 0o777, True: inner.stat().st_mode & 0o777}
    for place in places:
        for path in (place, *(place.rglob("*") if place.is_dir() else ())):
            if not path.is_symlink() and path.stat().st_mode & 0o777 != rights[path.is_dir()]:
                with suppress(OSError):
                    path.chmod(rights[path.is_dir()])
