"""Writes text to stdout or stderr, whatever they can encode, and with nothing that a terminal would obey."""

from __future__ import annotations

import codecs
import shutil
import sys
import textwrap
from typing import Any

from autopeft.common.exceptions import printable

LONGEST_ERROR, ITS_END = 3000, 500
"""Most characters of an error's message, and of its end if it is cut: the end says what to do next."""

IN_ASCII = {
    "█": "#", "░": ".", "▁": "_", "▂": "_", "▃": "-", "▄": "-", "▅": "=", "▆": "=", "▇": "#", "–": "-", "—": "-",
    "…": "...", "•": "*", "·": "-", "±": "+-", "→": "->",
}  # fmt: skip
"""Replacements for our own characters where a stream cannot encode them."""

ERRORS = "autopeft.plain"
"""Python's name of the rule for characters that a stream cannot encode."""


def plain_streams() -> None:
    """Let no write to stdout or stderr fail because their encoding lacks a character."""
    for stream in (sys.stdout, sys.stderr):
        if not takes_all(stream) and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ERRORS)


def tell_error(text: str) -> None:
    """Write an error's message to stderr, cut where it is too long; see `tell`."""
    if len(text) > LONGEST_ERROR:
        text = f"{text[: LONGEST_ERROR - ITS_END]} … {text[-ITS_END:]}"
    tell(text)


def tell(text: str) -> None:
    """Write a message to stderr, with nothing that a terminal would obey; on a terminal, wrapped between words."""
    text = f"autopeft: {printable(text)}"
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        lines = (
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")
        )
        text = "\n".join(line for wrapped in lines for line in wrapped or [""])
    sys.stderr.write(f"{text}\n")


def for_stdout(text: str) -> str:
    """Rows to write to stdout: unchanged for a program, without what a terminal would obey on a terminal."""
    return printable(text, keep="\n\t") if sys.stdout.isatty() else text


class PlainStream:
    """A wrapper for a stream whose encoding lacks characters. The stream is the caller's, so it is not changed."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, with replacements for characters that cannot be encoded."""
        encoding = self._stream.encoding
        return int(self._stream.write(text.encode(encoding, ERRORS).decode(encoding)))


def takes_all(stream: Any) -> bool:
    """Whether a stream can encode any text, or has no encoding to ask."""
    encoding, rule = getattr(stream, "encoding", None), getattr(stream, "errors", None)
    if not isinstance(encoding, str) or rule in (ERRORS, "replace", "backslashreplace", "ignore", "namereplace"):
        return True
    return codecs.lookup(encoding).name.startswith("utf")


def _in_plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(IN_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text)
    return plain, error.end


codecs.register_error(ERRORS, _in_plain)
