"""A PostgreSQL server of a test's own, which may crash."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVERS = ("psycopg", "psycopg2")


def programs() -> Path | None:
    """Where Debian's newest PostgreSQL has its programs; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


def driver() -> str | None:
    """The first driver that is installed."""
    return next((name for name in DRIVERS if importlib.util.find_spec(name)), None)


class Postgres:
    """A server that listens on a socket in its own folder alone.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        found = programs()
        assert found
        self.uri = f"postgresql+{driver()}://one@/postgres?host={folder}"
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
        self._control = [found / "pg_ctl", "-D", folder / "data", "-w"]
        self._options = ["-o", f"-k {folder} -c listen_addresses=''", "-l", folder / "log"]
        if self._user:
            shutil.chown(folder, "postgres")
        self._do(found / "initdb", "-D", folder / "data", "-A", "trust", "-U", "one")

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """A server in a folder of its own while the block runs."""
        with tempfile.TemporaryDirectory(prefix="pg-") as folder:  # short, as a socket's path must be
            server = cls(Path(folder))
            server.start()
            try:
                yield server
            finally:
                server.crash()

    def start(self) -> None:
        """Start it, after a crash too."""
        self._do(*self._control, *self._options, "start")

    def crash(self) -> None:
        """Abort all its processes at once, so that the next start has to recover."""
        self._do(*self._control, "-m", "immediate", "stop")

    def _do(self, *command: object) -> None:
        subprocess.run(
            [*self._user, *map(str, command)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
