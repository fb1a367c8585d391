"""Texts on stdin, one a line, as they come."""

from __future__ import annotations

import codecs
import io
import sys
from typing import TYPE_CHECKING, cast

from autopeft.common.exceptions import UserInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 2**16
"""Bytes that are read at a time, at most: what a pipe holds."""

MARK = "\ufeff"
"""A byte-order mark, which PowerShell puts first."""


def lines_of_stdin() -> list[str]:
    """All lines; see `batches_of_stdin`."""
    return [line for batch in batches_of_stdin() for line in batch]


def batches_of_stdin() -> Iterator[list[str]]:
    """The lines that are there, then those that have come meanwhile, and so on; no list is empty.

    An empty line is a text too, so that answers stay beside their lines.

    Raises:
        UserInputError: they are in another encoding.
    """
    begun: list[str] = []  # parts of a line whose end has not come yet
    for text in _texts():
        *whole, rest = text.split("\n")
        if whole:
            yield ["".join([*begun, whole[0]]), *whole[1:]]
            begun = []
        begun.append(rest)
    if last := "".join(begun):
        yield [last]


def _texts() -> Iterator[str]:
    """What stdin holds, part by part: each as soon as it is there."""
    stream, first = sys.stdin, True
    buffer = cast("io.BufferedReader", stream.buffer)
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(stream.encoding)(stream.errors or "strict"), translate=True
    )
    try:
        while True:
            chunk = buffer.read1(CHUNK)
            text = decoder.decode(chunk, final=not chunk)
            if text and first:
                text, first = text.removeprefix(MARK), False
            yield text
            if not chunk:
                return
    except UnicodeDecodeError as error:
        raise UserInputError(f"the texts on stdin must be in {error.encoding}, but are not: {error.reason}.") from None
