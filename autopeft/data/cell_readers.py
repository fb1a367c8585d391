"""Converters from the cells of a task's columns to what the task works with."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autopeft.data.picture import Picture, as_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Column(Protocol):
    """What is needed of a task's column; `tasks.Column` explains each part."""

    @property
    def key(self) -> str:
        """Its name."""

    @property
    def holds(self) -> str:
        """The kind of its cells."""

    @property
    def blank(self) -> bool:
        """Whether cells may be empty."""

    @property
    def read(self) -> Callable[[object], Any] | None:
        """The converter of a cell."""


def readers(columns: Iterable[Column], folder: Path | None) -> dict[str, Callable[[object], Any]]:
    """The converters of columns whose cells do not become text, by key; for `Texts`.

    Args:
        columns: of a task.
        folder: where relative paths of images start; default: the current folder.
    """
    as_image = functools.partial(as_picture, folder=folder or Path.cwd())
    found = {column.key: as_image if column.holds == "image" else column.read for column in columns}
    return {key: read for key, read in found.items() if read}


def fillable(columns: Iterable[Column]) -> set[str]:
    """Keys of the columns whose cells may be empty; for `Texts`."""
    return {column.key for column in columns if column.blank}


def size(cell: object) -> int:
    """About the number of characters of a cell in memory; 0 for an image, whose bytes all copies of a row share."""
    if isinstance(cell, str):
        return len(cell)
    return 0 if isinstance(cell, Picture) else len(str(cell))


def writable(cell: Any) -> Any:
    """A cell for Arrow: an image in the form of `datasets`, and other values that are not text as JSON."""
    if isinstance(cell, str):
        return cell
    if not isinstance(cell, Picture):
        return json.dumps(cell, ensure_ascii=False)
    held = isinstance(cell.source, bytes)
    return {"bytes": cell.source if held else None, "path": cell.name if held else str(cell.source)}
