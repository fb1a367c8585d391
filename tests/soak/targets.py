"""What is killed while a study runs: all of it, its driver alone, one of its workers, or a server that it writes to.

A target that needs a program or a package says which one is missing.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from autopeft.tracking import Tracker, serving
from tests.postgres import programs, server
from tests.search.test_run import edit
from tests.soak.books import run
from tests.soak.harness import Child

if TYPE_CHECKING:
    import random
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.soak.books import Whole

LONGEST_PAUSE = 2.0
"""Seconds at most until a server that was killed is started again."""


class Killed(NamedTuple):
    """A run in which something was killed: its command, which has ended, with its `code`, and whether it still ran."""

    child: Child
    hit: bool


class Target:
    """Something that is killed at a random moment; this one is the whole study, at a time.

    Attributes:
        name: as the script's option has it.
        workers: of the study.
        kills: how many of a hundred.
        uri: of the MLflow store; None for the study's own.
        codes: with which the study may end then; anything but 0 needs another start.
        kind: how its command runs.
    """

    name, workers, kills = "all-at-a-time", 1, 14
    uri: str | None = None
    codes: tuple[int, ...] = (-signal.SIGKILL, 0)
    kind: type[Child] = Child

    def missing(self) -> str:
        """What has to be installed for it; "" where all is there."""
        return ""

    @contextmanager
    def world(self, study: Path) -> Iterator[None]:
        """Prepare the study, and whatever it needs beside it, while the block runs."""
        edit(study, ("batch_size = 8", f"batch_size = 8\nworkers = {self.workers}"))
        yield

    def kill(self, study: Path, drawn: random.Random, whole: Whole) -> Killed:
        """Run the study, and kill something meanwhile.

        Args:
            study: its file.
            drawn: where the moment comes from.
            whole: the figures of an undisturbed run.
        """
        child = run(study, seconds=drawn.uniform(0, whole.seconds))
        return Killed(child, child.code == -signal.SIGKILL)

    def started(self, study: Path, drawn: random.Random, whole: Whole, until: float = 1.0) -> Child:
        """A run of the study at a random moment of it, in its first part `until` that share, unless it ends before."""
        moment = time.monotonic() + drawn.uniform(0, until * whole.seconds)
        child = self.kind("run", study.name, cwd=study.parent)
        while child.runs and time.monotonic() < moment:
            time.sleep(0.01)
        return child


class AtAChange(Target):
    """The whole study, right before it changes a file."""

    name, kills = "all-at-a-change", 14

    def kill(self, study: Path, drawn: random.Random, whole: Whole) -> Killed:
        """At any of the changes of an undisturbed run."""
        child = run(study, fatal=drawn.randint(1, whole.changes))
        return Killed(child, child.code == -signal.SIGKILL)


class WithWorkers(Target):
    """The whole study with two workers, at a time."""

    name, workers, kills = "workers-too-at-a-time", 2, 14


class WithWorkersAtAChange(AtAChange):
    """The whole study with two workers, right before any of its processes changes a file."""

    name, workers, kills = "workers-too-at-a-change", 2, 10


class Driver(Target):
    """The study's process alone: its workers must notice, and end."""

    name, workers, kills = "driver", 2, 10

    def kill(self, study: Path, drawn: random.Random, whole: Whole) -> Killed:
        """At a time."""
        child, hit = self.started(study, drawn, whole), False
        if child.runs:
            hit = child.kill()
        child.code = child.wait()
        return Killed(child, hit)


class Worker(Target):
    """One of two workers: the study replaces it, and goes on."""

    name, workers, kills = "worker", 2, 12
    codes = (0,)

    def kill(self, study: Path, drawn: random.Random, whole: Whole) -> Killed:
        """At a time before they have done; if none has begun by then, the first one that does."""
        child, hit = self.started(study, drawn, whole, until=0.5), False
        while child.runs and not (hit := child.kill_worker(drawn)):
            time.sleep(0.01)
        child.code = child.wait()
        return Killed(child, hit)


class Server(Target):
    """The MLflow server, which comes back after a moment; what the study could not send, `autopeft sync` sends."""

    name, kills = "server", 10
    codes = (0, 1, 2)  # a study that begins while it is away says so, and ends

    @contextmanager
    def world(self, study: Path) -> Iterator[None]:
        """With a server of its own, on a store that no study has to itself."""
        self._place = study.parent / "server"
        self._place.mkdir()
        Tracker.connect(None, self._place, "other").outbox.close(0)  # the store
        with super().world(study), ExitStack() as self._running:
            self._start(0)
            edit(study, add=f'[tracking]\nuri = "{self.uri}"\n')
            yield

    def kill(self, study: Path, drawn: random.Random, whole: Whole) -> Killed:
        """At a time, for a moment."""
        child = self.started(study, drawn, whole)
        hit = child.runs
        os.killpg(self._process.pid, signal.SIGKILL)
        time.sleep(drawn.uniform(0, LONGEST_PAUSE))
        self._running.close()
        self._start(int(str(self.uri).rpartition(":")[2]))
        return Killed(_synced(child, study), hit)

    def _start(self, port: int) -> None:
        address, process = self._running.enter_context(serving(None, self._place, "other", port))
        self._process: subprocess.Popen[bytes] = process
        assert self.uri in (None, address.split("/#")[0])
        self.uri = address.split("/#")[0]


class Database(Target):
    """The PostgreSQL server of the MLflow store, which recovers after a moment."""

    name, kills = "database", 5
    codes = (0, 1, 2)

    def missing(self) -> str:
        """A server and a driver."""
        if programs():
            return ""
        return "it needs PostgreSQL and its driver (Debian: postgresql; pip install psycopg[binary])"

    @contextmanager
    def world(self, study: Path) -> Iterator[None]:
        """With a server of its own."""
        with super().world(study), server() as self._server:
            self.uri = self._server.url("mlflow")
            edit(study, add=f'[tracking]\nuri = "{self.uri}"\n')
            yield

    def kill(self, study: Path, drawn: random.Random, whole: Whole) -> Killed:
        """At a time, for a moment."""
        child = self.started(study, drawn, whole)
        hit = child.runs
        self._server.stop()
        time.sleep(drawn.uniform(0, LONGEST_PAUSE))
        self._server.start()
        return Killed(_synced(child, study), hit)


class Trials(Database):
    """The same where it holds Optuna's trials too: the study ends when it cannot write them, and goes on later."""

    name = "trials"

    @contextmanager
    def world(self, study: Path) -> Iterator[None]:
        """With a database of Optuna's own."""
        with super().world(study):
            edit(study, add=f'storage = "{self._server.url("optuna")}"\n')
            yield


def _synced(child: Child, study: Path) -> Child:
    """Wait for a run of the study; if it came to its end, send what its store could not take meanwhile."""
    child.code = child.wait()
    if child.code == 0:
        sent = Child("sync", study.name, cwd=study.parent)
        assert sent.wait() == 0, sent.said
    return child
