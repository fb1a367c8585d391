"""A command in a real terminal of a given size: a pty, and an emulator that draws what comes out of it.

`python -m tests.terminal 80 24 run studies/quickstart.toml` runs a command so and prints its last screen.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

import pyte

SIZES = ((80, 24), (100, 30), (200, 50))
REDRAWN = re.compile(rb"(?=\r\x1b\[2K)")
"""Where a live view begins its next picture."""

ANY_WIDTH = 1000
"""Columns of a second screen, on which no line is broken: so it shows how long lines are."""


@dataclass
class Shown:
    """What a terminal showed.

    Attributes:
        code: the command's exit code.
        lines: all that it had when the command ended, what has scrolled away too.
        widest: the most cells that a line ever had.
        screens: what was in sight after each piece of output and each picture of a live view, a list of lines each.
    """

    code: int
    lines: list[str]
    widest: int
    screens: list[list[str]]

    @property
    def last(self) -> str:
        """The last screen."""
        return "\n".join(self.screens[-1])


def show(*arguments: object, cwd: Path, columns: int, lines: int, resized: tuple[int, int] | None = None) -> Shown:
    """Run the command line in a terminal; one that is `resized` gets another size once something is on it."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (lines, columns))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "autopeft", *map(str, arguments)],
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"},
        start_new_session=True,
    )
    os.close(theirs)
    seen = pyte.HistoryScreen(columns, lines, history=100_000)
    ruler = pyte.HistoryScreen(ANY_WIDTH, lines, history=100_000)
    streams = [pyte.ByteStream(screen) for screen in (seen, ruler)]
    widest, screens = 0, []
    while output := _read(ours):
        for piece in REDRAWN.split(output):  # several pictures may come at once, where this process had to wait
            for stream in streams:
                stream.feed(piece)
            widest = max(widest, *(len(line.rstrip()) for line in ruler.display))
            screens.append([line.rstrip() for line in seen.display])
        if resized:
            termios.tcsetwinsize(ours, (resized[1], resized[0]))
            seen.resize(resized[1], resized[0])
            resized = None
    os.close(ours)
    past = ["".join(row[at].data for at in range(columns)).rstrip() for row in seen.history.top]
    return Shown(process.wait(), [*past, *screens[-1]], widest, screens)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end was closed
        return b""


if __name__ == "__main__":
    done = show(*sys.argv[3:], cwd=Path(), columns=int(sys.argv[1]), lines=int(sys.argv[2]))
    sys.stdout.write(f"{done.last}\n")
    raise SystemExit(done.code)
