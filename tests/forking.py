"""Commands in a forked child: a process of its own, with signals, limits and streams of its own, and no new imports."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Child:
    """A forked process that runs `work`; its exit status is what that returns, 70 where it raises.

    Args:
        work: what it does.
        folder: where it runs, and where `stderr` goes; `stdout` is a pipe, to be read by `line` and `rest`.
    """

    def __init__(self, work: Callable[[], int], folder: Path) -> None:
        self.errors = folder / "stderr.txt"
        read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(read)
            self._become(work, folder, write)
        os.close(write)
        self.stdout = os.fdopen(read, "rb")

    def _become(self, work: Callable[[], int], folder: Path, write: int) -> None:
        code = 70
        try:
            os.setsid()
            os.chdir(folder)
            errors = os.open(self.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(write, 1)
            os.dup2(errors, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(code)

    def line(self, words: str) -> str:
        """The next line of its output with these words."""
        for line in self.stdout:
            if words in line.decode():
                return line.decode()
        raise AssertionError(f"it ended before it said {words!r}; {self.wait()}")

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> tuple[int, str]:
        """Its exit status, negative for a signal, and what it said on stderr; its output is read to the end."""
        if not self.stdout.closed:
            self.stdout.read()
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status), self.errors.read_text()


def command(*arguments: object) -> int:
    """The command line, as a child runs it."""
    from autopeft.cli import app

    sys.argv = ["autopeft", *map(str, arguments)]
    try:
        app.main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0
