"""A MySQL server of a test's own, where MariaDB's programs are installed (Debian: mariadb-server)."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER, MAKER, CLIENT, WATCH = "mariadbd", "mariadb-install-db", "mariadb", "mariadb-admin"
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
LONGEST = 60.0
"""Seconds for it to start."""

needs_mysql = pytest.mark.skipif(
    not all(shutil.which(name, path=PLACES) for name in (SERVER, MAKER, CLIENT, WATCH)) or not find_spec("pymysql"),
    reason="needs a MariaDB server and a driver, pymysql",
)


@contextmanager
def server() -> Iterator[Path]:
    """The socket of a server without a network, which runs while the block does; `url` makes databases there."""
    with tempfile.TemporaryDirectory(prefix="my") as folder:  # a socket's path must be short
        data, socket = Path(folder) / "data", Path(folder) / "socket"
        owner = []
        if os.geteuid() == 0:  # it refuses to run as root
            owner = ["--user=mysql"]
            shutil.chown(folder, "mysql")
        common = ["--no-defaults", f"--datadir={data}", *owner]
        _do(MAKER, *common, "--auth-root-authentication-method=normal", "--skip-test-db")
        program = str(shutil.which(SERVER, path=PLACES))
        options = [f"--socket={socket}", "--skip-networking", "--innodb-flush-log-at-trx-commit=0"]
        process = subprocess.Popen([program, *common, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + LONGEST
            while _do(WATCH, f"--socket={socket}", "--user=root", "ping", check=False):
                assert time.monotonic() < deadline, "MariaDB did not start"
                time.sleep(0.2)
            yield socket
        finally:
            process.terminate()
            process.wait(LONGEST)


def url(socket: Path, database: str) -> str:
    """The address of a database, which is made."""
    _do(CLIENT, f"--socket={socket}", "--user=root", "-e", f"CREATE DATABASE {database}")
    return f"mysql+pymysql://root@localhost/{database}?unix_socket={socket}"


def _do(program: str, *arguments: str, check: bool = True) -> int:
    command = [str(shutil.which(program, path=PLACES)), *arguments]
    return subprocess.run(command, check=check, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
