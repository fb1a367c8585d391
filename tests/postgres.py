"""A PostgreSQL server of a test's own, where its programs are installed (Debian: postgresql)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def programs() -> Path | None:
    """The folder of the newest server's programs; None where there is none, or no driver."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    beside = shutil.which("initdb")
    place = found[-1].parent if found else Path(beside).parent if beside else None
    return place if find_spec("psycopg") else None


needs_postgres = pytest.mark.skipif(programs() is None, reason="needs a PostgreSQL server and its driver, psycopg")


class Server:
    """A server that listens on a socket in its own folder alone.

    Attributes:
        folder: of the socket and the data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._data, self._runs = folder, folder / "data", False
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
        self._data.mkdir()
        for path in (folder, self._data):
            shutil.chown(path, "postgres") if self._user else None
        self._do("initdb", "-D", self._data, "-A", "trust", "-U", "one", "-N", "-E", "UTF8")

    def url(self, database: str) -> str:
        """The address of a database, which is made if it does not exist."""
        self._do("createdb", "-h", self.folder, "-U", "one", database, check=False)
        return f"postgresql://one@/{database}?host={self.folder}"

    def start(self, fsync: str = "off") -> None:
        """Start it.

        Args:
            fsync: "on" where what it writes is to outlast a power cut, and takes the time for that.
        """
        self._runs = True
        options = f"-k {self.folder} -c listen_addresses='' -c fsync={fsync}"
        self._do("pg_ctl", "-D", self._data, "-w", "-l", self.folder / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a power cut would, if it runs."""
        if self._runs:
            self._do("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")
        self._runs = False

    def _do(self, program: str, *arguments: object, check: bool = True) -> None:
        place = programs()
        assert place
        command = [*self._user, place / program, *map(str, arguments)]
        subprocess.run(command, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")


@contextmanager
def server(fsync: str = "off") -> Iterator[Server]:
    """A server that runs while the block does; see `Server.start`."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # a socket's path must be short
        one = Server(Path(folder))
        one.start(fsync)
        try:
            yield one
        finally:
            one.stop()
