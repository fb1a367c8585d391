"""Reads a small file that anybody may have written: never more of it than a limit, and never blocking."""

from __future__ import annotations

import codecs
import os
import stat
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import UserInputError

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 2**23
"""Most bytes of a file that describes a model or a study; thousands of labels with long names take a tenth of it."""


def require(path: Path) -> None:
    """Check that a path is a plain file, or a link to one: not a folder, a pipe or a device.

    Raises:
        FileNotFoundError: nothing is there.
        UserInputError: something else is there, or it may not be read.
    """
    os.close(_open(path))


def read(path: Path, limit: int = LIMIT) -> bytes:
    """The content of a plain file.

    Raises:
        FileNotFoundError: nothing is there.
        UserInputError: it is not a plain file, it may not be read, or it is larger than `limit`.
    """
    with os.fdopen(_open(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise UserInputError(f"{path} must hold at most {limit:,} bytes, but holds {size:,}; restore it.")
        return file.read()


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """The content of a JSON file, with or without a byte-order mark.

    The parser bounds the nesting and the length of numbers.

    Raises:
        FileNotFoundError: nothing is there.
        UserInputError: it cannot be read, or is not JSON.
    """
    from pydantic_core import from_json

    content = read(path, limit).removeprefix(codecs.BOM_UTF8)
    try:
        return from_json(content)
    except ValueError as error:
        raise UserInputError(f"{path} must hold JSON, but cannot be parsed: {error}; restore it.") from None


def _open(path: Path) -> int:
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise UserInputError(f"{path} must be a readable file, but cannot be opened: {reason}.") from None
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise UserInputError(f"{path} must be a plain file, but is a folder, a pipe or a device; restore it.")
