"""Who may read what a study writes: whoever the user's umask says, for every file alike.

Libraries that write a file to a draft first, as safetensors and tempfile do, leave it to its owner alone. A service
that runs as another user then could not read a winner whose every other file it can.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path


def follow_umask(*places: Path) -> None:
    """Give files, and folders with all that is in them, the rights of new ones, where the file system keeps rights."""
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
