"""Commands in forked children of this process, which has imported what they need, killed where a test says.

A child is the leader of a process group of its own, and kills all of it, workers included, right before its n-th write,
rename or removal in the study's folder, or after so many seconds; a test may also kill its driver or one of its workers
alone. Workers are forked too, not spawned as they are outside of these tests: to import everything takes a worker ten
seconds, which two hundred runs cannot spend.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import torch
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

from autopeft.cli import app
from autopeft.execution import processes
from autopeft.search import run  # noqa: F401  # once, for all children
from tests.processes import command, descendants, group, parent

if TYPE_CHECKING:
    from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.truncate", "os.mkdir"}
TO_WRITE = os.O_WRONLY | os.O_RDWR
LONGEST = 300.0
"""Seconds for a command of some ten, so that one that hangs ends the test."""

FAREWELL = 10.0
"""Seconds for the workers of a driver that was killed to notice and end."""

DAY = 86_400.0


class Child:
    """A command that runs.

    Args:
        arguments: of the command line.
        cwd: where it runs; changes below count.
        fatal: the number of the change before which it is killed, from 1 on; 0 for none.
        seconds: after which it is killed.
        clock: the seed of jumps of its wall clock, by up to a day forth and back every moment; None for none.

    Attributes:
        pid: of its driver.
    """

    def __init__(
        self, *arguments: str, cwd: Path, fatal: int = 0, seconds: float | None = None, clock: int | None = None
    ) -> None:
        self.changes = multiprocessing.get_context("fork").Value("L", 0)
        self._said = cwd / f"said.{time.monotonic_ns()}"
        self._modules = self._said.with_name(f"{self._said.name}.modules")
        self._status: int | None = None
        _close_databases()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._run(arguments, cwd, fatal, seconds, clock)

    def wait(self) -> int:
        """Its exit code; -9 where it was killed. What it had to import, later children find imported.

        Raises:
            AssertionError: it does not end, or a process of its outlives it.
        """
        deadline = time.monotonic() + LONGEST
        while self.runs:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"a command did not end within {LONGEST:g} s, and said: {self.said}")
            time.sleep(0.02)
        deadline = time.monotonic() + FAREWELL
        while others := group(self.pid):
            assert time.monotonic() < deadline, f"the command ended, but these processes of its did not: {others}"
            time.sleep(0.02)
        for name in self._modules.read_text(encoding="utf-8").split() if self._modules.exists() else ():
            with suppress(Exception):  # some can be imported in some order alone
                importlib.import_module(name)
        assert self._status is not None
        return os.waitstatus_to_exitcode(self._status)

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is None

    @property
    def said(self) -> str:
        return self._said.read_text(encoding="utf-8")

    def kill(self) -> bool:
        """Kill its driver alone; whether it still ran."""
        if self.runs:
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False

    def kill_worker(self, drawn: random.Random) -> bool:
        """Kill one of its workers; whether there was one."""
        found = self.workers()
        with suppress(ProcessLookupError):  # it has just ended
            if found and self.runs:
                os.kill(drawn.choice(found), signal.SIGKILL)
                return True
        return False

    def workers(self) -> list[int]:
        """Its workers that run."""
        return [pid for pid in group(self.pid) if pid != self.pid and parent(pid) == self.pid and _forked(pid)]

    def _run(
        self, arguments: tuple[str, ...], cwd: Path, fatal: int, seconds: float | None, clock: int | None
    ) -> NoReturn:
        code = 70
        try:
            os.setpgid(0, 0)
            os.chdir(cwd)
            sys.stdout = sys.stderr = self._said.open("w", encoding="utf-8", buffering=1)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            torch.set_num_threads(1)
            processes.get_context = lambda _: multiprocessing.get_context("fork")
            self._count(str(cwd) + os.sep, fatal)
            if clock is not None:
                _let_jump(random.Random(clock))
            if seconds is not None:
                threading.Thread(target=_die_after, args=(seconds,), daemon=True).start()
            sys.argv = ["autopeft", *arguments]
            try:
                app.main()
                code = 0
            except SystemExit as done:
                code = int(done.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            with suppress(OSError):  # the disk may be full on purpose
                self._modules.write_text("\n".join(sorted(sys.modules)), encoding="utf-8")
            os._exit(code)

    def _count(self, below: str, fatal: int) -> None:
        """Count changes from now on, in this process and those it forks, and die before the fatal one."""

        def change() -> None:
            with self.changes.get_lock():
                self.changes.value += 1
                if self.changes.value == fatal:
                    os.killpg(0, signal.SIGKILL)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in CHANGES or (event == "open" and int(arguments[2] or 0) & TO_WRITE):  # type: ignore[call-overload]
                path = arguments[0]
                if isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(below):
                    change()

        sys.addaudithook(hook)


class RayChild(Child):
    """A command that uses Ray, in an interpreter of its own: gRPC, which Ray is built on, is not made for forks.

    Its changes are not counted, and it takes neither `fatal`, `seconds` nor `clock`.
    """

    def workers(self) -> list[int]:
        """Its actors that run."""
        return [pid for pid in descendants(self.pid) if command(pid).startswith("ray::Actor")]

    def _run(self, arguments: tuple[str, ...], cwd: Path, *_: object) -> NoReturn:
        os.setpgid(0, 0)
        os.chdir(cwd)
        said = os.open(self._said, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.execv(sys.executable, [sys.executable, "-m", "autopeft", *arguments])


def _close_databases() -> None:
    """Close what MLflow keeps open here: SQLite allows no connection to go through a fork."""
    for engine in (*Tracking._engine_map.values(), *Registry._engine_map.values()):
        engine.dispose()


def _die_after(seconds: float) -> None:
    time.sleep(seconds)
    os.killpg(0, signal.SIGKILL)


def _let_jump(drawn: random.Random) -> None:
    """Let the wall clock jump every moment from now on, in this process and those it forks; `monotonic` goes on."""
    real, real_ns, began = time.time, time.time_ns, time.monotonic()
    jumps = [drawn.uniform(-DAY, DAY) for _ in range(997)]

    def offset() -> float:
        return jumps[int((time.monotonic() - began) * 5) % len(jumps)]

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


def _forked(pid: int) -> bool:
    """Whether a process has the command line of this one, as a forked worker has, and not that of a helper."""
    return command(pid) == command(os.getpid())
