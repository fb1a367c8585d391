"""Reads the rows of a sheet of an ods file: a zip archive whose `content.xml` holds the cells (OpenDocument standard).

odfpy, which pandas uses, is not used here: if the XML is damaged, it goes on with what it has.
"""

from __future__ import annotations

import datetime
import re
import zipfile
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from autopeft.common.exceptions import DataError
from autopeft.data.cells import FormulaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from xml.etree.ElementTree import Element

OFFICE, TABLE, TEXT = (f"{{urn:oasis:names:tc:opendocument:xmlns:{name}:1.0}}" for name in ("office", "table", "text"))
SHEET, ROW = f"{TABLE}table", f"{TABLE}table-row"
CELLS = (f"{TABLE}table-cell", f"{TABLE}covered-table-cell")

MOST_ROWS, MOST_COLUMNS = 2**24, 2**14
"""LibreOffice's limits for a sheet: a file may say that a row repeats any number of times."""

ERROR = re.compile(r"#[A-Z/0-9]+[!?]?|Err:\d+")
"""LibreOffice's form of a formula that failed."""

NUMBERS = ("float", "percentage", "currency")


def rows(path: Path, choose: Callable[[list[str]], str]) -> Iterator[list[Any]]:
    """The cells of each row, beginning with the first; None for an empty cell; see `xlsx.rows`.

    Raises:
        DataError: the file is damaged or locked, or declares more rows or columns than any spreadsheet has.
    """
    try:
        names = [str(sheet.get(f"{TABLE}name")) for sheet, row in _read(path) if row is None]
        chosen, count = choose(names), 0
        for sheet, row in _read(path):
            if row is None or sheet.get(f"{TABLE}name") != chosen:
                continue
            cells, times = _cells(row, path), _times(row, "rows")
            count += times
            if count > MOST_ROWS:
                raise DataError(f"{path} must have at most {MOST_ROWS:,} rows, but declares more; save it again.")
            for _ in range(times):
                yield cells
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is damaged, or locked with a password ({error}); save it again without a password, or as .csv."
        ) from None


def _read(path: Path) -> Iterator[tuple[Element, Element | None]]:
    """Each sheet where it begins, and then each of its rows with it."""
    sheets: list[Element] = []  # nested if a cell holds a table
    with zipfile.ZipFile(path) as archive, archive.open("content.xml") as stream:
        for event, element in ElementTree.iterparse(stream, ("start", "end")):
            if element.tag == SHEET:
                if event == "end":
                    sheets.pop()
                    continue
                sheets.append(element)
                if len(sheets) == 1:
                    yield element, None
            elif element.tag == ROW and event == "end" and len(sheets) == 1:
                yield sheets[0], element
                element.clear()


def _cells(row: Element, path: Path) -> list[Any]:
    found: list[Any] = []
    for cell in row:
        if cell.tag in CELLS:
            value, times = _value(cell), _times(cell, "columns")
            if value is not None and len(found) + times > MOST_COLUMNS:
                raise DataError(f"{path} must have at most {MOST_COLUMNS:,} columns; save it again.")
            found += [value] * min(times, MOST_COLUMNS)
    while found and found[-1] is None:
        found.pop()
    return found


def _times(element: Element, what: str) -> int:
    return max(int(element.get(f"{TABLE}number-{what}-repeated", 1)), 1)


def _value(cell: Element) -> Any:
    kind = cell.get(f"{OFFICE}value-type")
    shown = "\n".join(_text(part) for part in cell if part.tag == f"{TEXT}p")
    if ERROR.fullmatch(shown) and cell.get(f"{TABLE}formula"):
        return FormulaError(shown)
    if kind in NUMBERS:
        number = float(cell.attrib[f"{OFFICE}value"])
        return int(number) if number.is_integer() else number
    if kind == "boolean":
        return cell.get(f"{OFFICE}boolean-value") == "true"
    if kind == "date":
        written = cell.attrib[f"{OFFICE}date-value"]
        whole = datetime.datetime.fromisoformat(written)
        return whole if "T" in written else whole.date()
    return shown or None


def _text(element: Element) -> str:
    """The characters of a paragraph, in which spaces, tabs and line ends are separate elements."""
    parts = [element.text or ""]
    for part in element:
        if part.tag == f"{TEXT}s":
            parts.append(" " * int(part.get(f"{TEXT}c", 1)))
        elif part.tag in (f"{TEXT}tab", f"{TEXT}line-break"):
            parts.append("\t" if part.tag == f"{TEXT}tab" else "\n")
        elif part.tag != f"{OFFICE}annotation":
            parts.append(_text(part))
        parts.append(part.tail or "")
    return "".join(parts)
