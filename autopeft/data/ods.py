"""Rows of a sheet of an ods file, by odfpy."""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any

from odf import teletype
from odf.namespaces import OFFICENS, TABLENS, TEXTNS
from odf.opendocument import load
from odf.table import Table, TableRow

from autopeft.common.exceptions import DataError
from autopeft.data.cells import FormulaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MOST_ROWS, MOST_COLUMNS = 2**24, 2**14
"""Of a sheet, as LibreOffice has them at most: a file may repeat a row any number of times."""

ERROR = re.compile(r"#[A-Z/0-9]+[!?]?|Err:\d+")
"""How LibreOffice writes a formula that failed."""

NUMBERS = ("float", "percentage", "currency")


def rows(path: Path, choose: Callable[[list[str]], str]) -> Iterator[list[Any]]:
    """The cells of each row from the first on; None for an empty one; see `xlsx.rows`.

    Raises:
        DataError: it says that it has more rows or columns than any spreadsheet.
    """
    sheets = {sheet.getAttribute("name"): sheet for sheet in load(str(path)).spreadsheet.getElementsByType(Table)}
    count = 0
    for row in sheets[choose([*sheets])].getElementsByType(TableRow):
        cells = _cells(row, path)
        times = _times(row, "rows")
        count += times
        if not any(cell is not None for cell in cells):
            times = min(times, MOST_ROWS)
        if count > MOST_ROWS:
            raise DataError(f"{path} must have at most {MOST_ROWS:,} rows, but says it has {count:,}; save it anew.")
        for _ in range(times):
            yield cells


def _cells(row: Any, path: Path) -> list[Any]:
    found: list[Any] = []
    for cell in row.childNodes:
        if cell.qname[0] == TABLENS and cell.qname[1] in ("table-cell", "covered-table-cell"):
            value, times = _value(cell), _times(cell, "columns")
            if value is not None and len(found) + times > MOST_COLUMNS:
                raise DataError(f"{path} must have at most {MOST_COLUMNS:,} columns; save it anew.")
            found += [value] * min(times, MOST_COLUMNS)
    while found and found[-1] is None:
        found.pop()
    return found


def _times(node: Any, what: str) -> int:
    return max(int(node.getAttrNS(TABLENS, f"number-{what}-repeated") or 1), 1)


def _value(cell: Any) -> Any:
    kind = cell.getAttrNS(OFFICENS, "value-type")
    shown = "\n".join(
        teletype.extractText(part) for part in cell.childNodes if getattr(part, "qname", None) == (TEXTNS, "p")
    )
    if ERROR.fullmatch(shown) and cell.getAttrNS(TABLENS, "formula"):
        return FormulaError(shown)
    if kind in NUMBERS:
        number = float(cell.getAttrNS(OFFICENS, "value"))
        return int(number) if number.is_integer() else number
    if kind == "boolean":
        return cell.getAttrNS(OFFICENS, "boolean-value") == "true"
    if kind == "date":
        written = cell.getAttrNS(OFFICENS, "date-value")
        whole = datetime.datetime.fromisoformat(written)
        return whole if "T" in written else whole.date()
    return shown or None
