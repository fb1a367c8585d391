"""Where text for people goes: a terminal, a notebook, or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 160
"""Of what is no screen: Rich falls back to 80 columns, but a log file has no such edge."""


def make_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console to which words of a plugin or of the user's are no markup."""
    from rich.console import Console

    console = Console(stderr=stderr, quiet=quiet, markup=False, emoji=False)
    if not (console.is_terminal or console.is_jupyter):
        console.width = WIDTH
    return console
