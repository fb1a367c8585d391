"""Paths as people write them, checked before the file system sees them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from autopeft.common.exceptions import shorten

LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Most bytes of a file's name and of a path: the limits of file systems and of Linux."""


def as_path(text: str | os.PathLike[str]) -> Path:
    """A path with `~` expanded.

    Raises:
        ValueError: no file can have it: it is too long, `~` is not a user's home, or a character is not allowed.
    """
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        raw = b"\0"
    if b"\0" in raw:
        raise ValueError(f"must be a path, but {shorten(str(text))} has a character that no path can have")
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(
            f"must be a path, but {shorten(str(text))} begins with the home folder of a user who has none; "
            "write the path out"
        ) from None
    names = [part for part in path.parts if len(os.fsencode(part)) > LONGEST_NAME]
    if names or len(os.fsencode(path)) > LONGEST_PATH:
        most = f"names of at most {LONGEST_NAME} bytes" if names else f"at most {LONGEST_PATH:,} bytes"
        raise ValueError(f"must be a path with {most}, but got {shorten(names[0] if names else str(path))}")
    return path


def near(path: Path) -> Path:
    """A path to show: relative to the working folder, if it is in there."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def with_absolute_paths(settings: Any, folder: Path) -> Any:
    """Settings of which only a plugin knows which are paths: those that exist, from `folder` on, are made absolute."""
    if isinstance(settings, Mapping):
        return {key: with_absolute_paths(inner, folder) for key, inner in settings.items()}
    if isinstance(settings, list):
        return [with_absolute_paths(inner, folder) for inner in settings]
    with suppress(OSError, ValueError):  # no valid path
        if isinstance(settings, str) and settings and (path := (folder / settings).absolute()).exists():
            return str(path)
    return settings
