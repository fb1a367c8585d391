"""Reads sheets of xlsx and ods files as tables: each cell has its value, not the text that its format shows."""

from __future__ import annotations

import datetime
import zipfile
from typing import TYPE_CHECKING, Any

import pandas as pd

from autopeft.common.exceptions import DataError, nearest, quoted
from autopeft.common.free_memory import free_memory
from autopeft.common.units import format_bytes
from autopeft.data import ods
from autopeft.data.cells import CellError, as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Cells = Callable[[Sequence[str]], pd.DataFrame]

FORMATS = ("xlsx", "ods")
OTHERS = ("xls", "xlsm", "xlsb", "numbers", "gsheet")
"""Endings of spreadsheets that are not read."""

MEMORY = 7
"""Bytes of memory needed, at least, to read one unpacked byte."""

PART = {"xlsx": "[Content_Types].xml", "ods": "META-INF/manifest.xml"}
"""A file that every archive of a format has."""

TOLD = (datetime.date, datetime.time, datetime.timedelta, bool)
"""Types of cells whose text may look different from the spreadsheet."""


def read(path: Path, suffix: str, sheet: str | None, note: Callable[[str], None]) -> tuple[list[str], Cells]:
    """The names of the columns, and a function that gives the cells of some of them; the index is the sheet's rows.

    The first row that is not empty names the columns; empty rows below it are left out.

    Args:
        path: of the file.
        suffix: its format.
        sheet: its name; default: the first.
        note: called with what was assumed.

    Raises:
        DataError: a library or the sheet is missing, or the file is damaged or too large.
    """
    _examine(path, suffix)
    reader = _reader(suffix, path)
    filled = (
        (number, row)
        for number, row in enumerate(reader(path, lambda names: _chosen(names, sheet, path, note)), 1)
        if any(cell is not None for cell in row)
    )
    _, first = next(filled, (0, []))
    header = [_name(cell, path) for cell in first]
    rows = list(filled)
    width = max((len(row) for _, row in rows), default=0)
    header += [""] * (width - len(header))
    places = [
        place
        for place, name in enumerate(header)
        if name or any(place < len(row) and row[place] is not None for _, row in rows)
    ]
    index = pd.Index([number for number, _ in rows], name="row")
    told = set[str]()

    def cells(columns: Sequence[str]) -> pd.DataFrame:
        found = {}
        for name in columns:
            place = header.index(name)
            values = [row[place] if place < len(row) else None for _, row in rows]
            odd = next((value for value in values if isinstance(value, TOLD)), None)
            if odd is not None and name not in told:
                told.add(name)
                note(
                    f"The column {quoted(name)} of {path.name} holds dates, times or truth values; they are read as "
                    f"texts such as {quoted(as_text(odd))}."
                )
            found[name] = pd.Series(values, index=index, dtype=object)
        return pd.DataFrame(found, index=index)

    return [header[place] for place in places], cells


def require(suffix: str, path: Path) -> None:
    """Refuse spreadsheets in formats that are not read.

    Raises:
        DataError: the file is one.
    """
    if suffix in OTHERS:
        raise DataError(
            f"{path} is a spreadsheet in a format that autopeft does not read; save it as .xlsx or as .csv."
        )


def _reader(suffix: str, path: Path) -> Callable[[Path, Callable[[list[str]], str]], Iterator[list[Any]]]:
    """A function that gives the rows of a sheet, which it asks for; None for an empty cell.

    Raises:
        DataError: the needed library is not installed.
    """
    if suffix == "ods":
        return ods.rows
    try:
        from autopeft.data import xlsx
    except ImportError as error:
        raise DataError(
            f"{path} is a spreadsheet, and reading it needs {error.name}; install it with `pip install "
            '"autopeft[tables]"`, or save the sheet as .csv.'
        ) from None
    return xlsx.rows


def _chosen(names: list[str], sheet: str | None, path: Path, note: Callable[[str], None]) -> str:
    if not names:
        raise DataError(f"{path} must have a sheet with rows, but all are empty.")
    if sheet is None:
        if len(names) > 1:
            note(
                f"{path.name} has {len(names)} sheets; the first, {quoted(names[0])}, is read. Name another as `sheet`."
            )
        return names[0]
    if sheet not in names:
        raise DataError(f"{path} has no sheet {quoted(sheet)}; {nearest(sheet, names)} Name the right one as `sheet`.")
    return sheet


def _name(cell: object, path: Path) -> str:
    try:
        return "" if cell is None else as_text(cell).strip()
    except CellError as error:
        raise DataError(f"{path}: every name in the first row must be text, but one {error.found}.") from None


def _examine(path: Path, suffix: str) -> None:
    """Refuse a file with another format, or that unpacks to more than fits in memory: both formats are zip archives."""
    try:
        with zipfile.ZipFile(path) as archive:
            archive.getinfo(PART[suffix])
            size = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, KeyError):
        raise DataError(
            f"{path} must be a spreadsheet as its name says, but is damaged, of another kind, or locked with a "
            "password; save it again without a password, or as .csv."
        ) from None
    if size * MEMORY > (free := free_memory()):
        raise DataError(
            f"{path} unpacks to {format_bytes(size)}, and reading it takes about {format_bytes(size * MEMORY)} of "
            f"memory, but {format_bytes(free)} are free; save it as .csv, or give fewer rows."
        )
