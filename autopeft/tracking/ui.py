"""The MLflow UI on a study's store, on the loopback interface only."""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from autopeft.common.address import public
from autopeft.common.exceptions import TrackingError
from autopeft.common.interrupt import Interrupt
from autopeft.study.folder import ARTIFACTS, STORE
from autopeft.tracking.address import is_server, sqlite_path, sqlite_uri
from autopeft.tracking.store import PATIENCE, connect
from autopeft.tracking.view import VIEW

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = "ui.sock"

REDIRECTING = (
    "MLFLOW_ARTIFACTS_ONLY",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_ENABLE_WORKSPACES",
    "MLFLOW_GUNICORN_OPTS",
    "MLFLOW_READ_REPLICA_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_STATIC_PREFIX",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_UVICORN_OPTS",
    "MLFLOW_WORKSPACE",
    "MLFLOW_WORKSPACE_STORE_URI",
)
"""Variables that would make the server show another store than the study's, or listen elsewhere."""


def serve(uri: str | None, output: Path, name: str, port: int, *, private: bool = False) -> None:
    """Serve the MLflow UI on a study's store until Ctrl-C; a tracking server already serves it.

    It listens on 127.0.0.1, where every account of the machine can reach it, or on a socket for this account only.

    Raises:
        TrackingError: the study has no store yet, or the server does not start.
    """
    if uri and is_server(uri):
        sys.stdout.write(f"The study logs to a tracking server; open {public(uri)}\n")
        return
    closed = Interrupt(signal.SIGHUP)  # a closed terminal must end the server too
    with suppress(KeyboardInterrupt), closed as interrupt, ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autopeft-ui-"))) / SOCKET
        port = port or 5000 if private else port  # of the browser's machine, which no socket here can pick
        served = serving(uri, output, name, port, place if private else None)
        address, process = stack.enter_context(served)
        if private:
            there = f"{getpass.getuser()}@{socket.gethostname()}"
            sys.stdout.write(f"For this account alone. From your own machine: ssh -L {port}:{place} {there}\n")
        sys.stdout.write(f"MLflow UI: {address}\nCtrl-C ends it.\n")
        sys.stdout.flush()
        while process.poll() is None:
            interrupt.check()  # repeatedly: a signal just before one long wait would not end it
            time.sleep(0.2)
        raise TrackingError(f"the MLflow server stopped with exit status {process.returncode}.")


@contextmanager
def serving(
    uri: str | None, output: Path, name: str, port: int = 5000, place: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run an MLflow server on a study's store, on 127.0.0.1 or a socket, while the block runs.

    Args:
        uri: the store, as in the study file.
        output: the study's folder.
        name: the study's name.
        port: where to listen; if it is taken, a free one is found.
        place: path of a Unix socket to listen on instead, in a folder of the user's own; it must not exist yet.

    Yields:
        The address of the study's runs page, best score first, and the server's process.

    Raises:
        TrackingError: the study has no store yet, or the server does not start.
    """
    if not uri and not (output / STORE).is_file():
        raise TrackingError(f"{output} holds no MLflow store yet; run the study first.")
    _, target, experiment_id = connect(uri, output, name, PATIENCE)
    port = port if place else _free_port(port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", (output / ARTIFACTS).absolute().as_uri()]
    command += ["--uvicorn-opts", shlex.join(["--uds", str(place)])] if place else []
    # The store is not passed as an argument, which every user of the machine could read.
    settings = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # background jobs judge chat traces, which a study does not have
    }
    inherited = {name: value for name, value in os.environ.items() if name not in REDIRECTING}
    with tempfile.TemporaryFile() as log, _plain(target) as settings["MLFLOW_BACKEND_STORE_URI"]:
        process = subprocess.Popen(
            command,
            env={**inherited, **settings},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            if not _comes_up(process, place or port):
                log.seek(0)
                last = (log.read().decode(errors="replace").strip().splitlines() or ["nothing"])[-1]
                raise TrackingError(f"the MLflow server did not start; its last output: {last}")
            query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
            yield f"http://127.0.0.1:{port}/#/experiments/{experiment_id}/runs?{query}", process
        finally:
            _end(process)


@contextmanager
def _plain(uri: str) -> Iterator[str]:
    """The address of a store; for a SQLite file whose path needs escapes, through a link whose path needs none.

    MLflow's server would take the escapes for a folder's name, and make that folder.
    """
    path = sqlite_path(uri)
    if path is None or "%" not in uri:
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="autopeft-ui-") as folder:
        link = Path(folder) / "store"
        link.symlink_to(path.parent.absolute())
        yield sqlite_uri(link / path.name)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, which share a process group."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, ending)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)


def _comes_up(process: subprocess.Popen[bytes], place: Path | int, seconds: float = 120) -> bool:
    kind, address = (socket.AF_INET, ("127.0.0.1", place)) if isinstance(place, int) else (socket.AF_UNIX, str(place))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket(kind) as probe:
            if probe.connect_ex(address) == 0:
                return True
        time.sleep(0.2)
    return False


def _free_port(wanted: int) -> int:
    """`wanted` if it is free, else one that the system picks."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise TrackingError("no free port was found on 127.0.0.1.")
