"""Where text for people goes: a terminal, a notebook, or a file, whatever it can show and would obey."""

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
"""Of what is not a screen: Rich falls back to 80 columns, but a log file has no such edge."""


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console to which words of a plugin or of the user's are neither markup nor commands, and never too much."""
    from rich.console import Console as Richs

    class Console(Richs):
        """Ends no process where its reader left, as Rich's own does, but tells the main thread, which knows how."""

        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            """Write out what the terminal would obey; Rich's own commands are not text yet."""
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

        def _check_buffer(self) -> None:
            try:
                super()._check_buffer()
            except OSError:
                del self._buffer[:]
                if threading.current_thread() is threading.main_thread():
                    raise  # any other thread has better to do than to print

        def on_broken_pipe(self) -> None:
            """Be quiet from now on.

            Raises:
                StreamError: nobody reads.
                BrokenPipeError: the same, in another thread.
            """
            if threading.current_thread() is not threading.main_thread():
                raise BrokenPipeError
            self.quiet = True
            with suppress(OSError, ValueError, AttributeError):  # what Python itself has still to write, as it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
            raise StreamError

    stream = sys.stderr if stderr else sys.stdout
    file: Any = None if takes_all(stream) else PlainStream(stream)
    console = Console(file=file, stderr=stderr, quiet=quiet, markup=False, emoji=False)
    if not (console.is_terminal or console.is_jupyter):
        console.width = WIDTH
    return console
