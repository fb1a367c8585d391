"""Consoles for text that people read: a terminal, a notebook, or a file, with no control sequences let through."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import StreamError, printable
from autopeft.common.streams import PlainStream, takes_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from rich.segment import Segment

WIDTH = 160
"""Columns where there is no screen: Rich falls back to 80, but a log file has no such edge."""


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints a plugin's or a user's words as they are, neither as markup nor as commands."""
    from rich.console import Console as Richs

    class Console(Richs):
        """Does not end the process when its reader has left, as Rich's own does, but raises in the main thread."""

        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            """Escape what a terminal would obey; Rich's own commands are not text yet."""
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

        def _check_buffer(self) -> None:
            try:
                super()._check_buffer()
            except OSError:
                del self._buffer[:]
                if threading.current_thread() is threading.main_thread():
                    raise  # other threads go on without printing

        def on_broken_pipe(self) -> None:
            """Print nothing from now on.

            Raises:
                StreamError: nobody reads the output.
                BrokenPipeError: the same, in another thread.
            """
            if threading.current_thread() is not threading.main_thread():
                raise BrokenPipeError
            self.quiet = True
            with suppress(OSError, ValueError, AttributeError):  # for what Python itself still writes as it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
            raise StreamError

    stream = sys.stderr if stderr else sys.stdout
    file: Any = None if takes_all(stream) else PlainStream(stream)
    console = Console(file=file, stderr=stderr, quiet=quiet, markup=False, emoji=False)
    if not (console.is_terminal or console.is_jupyter):
        console.width = WIDTH
    return console
