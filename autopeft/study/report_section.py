"""The sections of the report that a kind of task makes of the held-out rows, kept beside the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIMIT = 2**26
"""Most bytes of such a file."""

AS_BASE64 = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", extra="forbid")


@dataclass(frozen=True)
class Exhibit:
    """A row to show: its image as a PNG file, and a caption."""

    __pydantic_config__: ClassVar[ConfigDict] = AS_BASE64

    caption: str
    png: bytes


@dataclass(frozen=True)
class ReportTable:
    """A table: the names of its columns, and its rows as text; `numbers` are the columns aligned to the right.

    `shaded` makes it a heat map: numbers from 0 to 1 in these columns are shaded by their value.
    """

    __pydantic_config__: ClassVar[ConfigDict] = AS_BASE64

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...] = ()
    shaded: bool = False


@dataclass(frozen=True)
class ReportPlot:
    """Points in a picture, `(x, y, size)`; the size, from 0 to 1, shows how many rows a point stands for.

    `diagonal` draws the line where x and y are equal; both then go from 0 to 1.
    """

    __pydantic_config__: ClassVar[ConfigDict] = AS_BASE64

    title: str
    x: str
    y: str
    points: tuple[tuple[float, float, float], ...]
    diagonal: bool = False


@dataclass(frozen=True)
class ReportSection:
    """A section of the report: its heading, a sentence or two, a picture, a table, and rows shown as images."""

    __pydantic_config__: ClassVar[ConfigDict] = AS_BASE64

    title: str
    text: str
    exhibits: tuple[Exhibit, ...] = ()
    table: ReportTable | None = None
    plot: ReportPlot | None = None


def write(sections: Sequence[ReportSection], path: Path) -> None:
    """Write sections as JSON."""
    path.write_bytes(TypeAdapter(list[ReportSection]).dump_json(list(sections), indent=1) + b"\n")


def read(path: Path) -> list[ReportSection]:
    """The sections that `write` wrote; empty where there is no such file.

    Raises:
        ValueError: it is not such a file.
    """
    try:
        found: list[ReportSection] = TypeAdapter(list[ReportSection]).validate_json(plain_file.read(path, LIMIT))
    except FileNotFoundError:
        return []
    except (ValidationError, UserInputError) as error:
        raise ValueError(f"{path} must hold sections of a report, but does not: {str(error).splitlines()[0]}") from None
    return found
