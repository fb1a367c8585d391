"""Rows of a sheet of an xlsx file, by openpyxl."""

from __future__ import annotations

import datetime
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any

import openpyxl
from openpyxl.styles.numbers import is_datetime

from autopeft.data.cells import FormulaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ERROR = "e"
"""openpyxl's word for the type of a cell whose formula failed."""


def rows(path: Path, choose: Callable[[list[str]], str]) -> Iterator[list[Any]]:
    """The cells of each row from the first on; None for an empty one.

    A formula is what the spreadsheet program worked it out to be.

    Args:
        path: of the file.
        choose: gives the name of one of the sheets.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that it leaves out, such as drawings
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        with closing(book):
            sheet = book[choose([sheet.title for sheet in book.worksheets])]
            sheet.reset_dimensions()  # as the file says; some programs say it wrong, and rows would be cut
            for row in sheet.iter_rows():
                yield [_value(cell) for cell in row]


def _value(cell: Any) -> Any:
    value = cell.value
    if value is None or value == "":
        return None
    if cell.data_type == ERROR:
        return FormulaError(str(value))
    if isinstance(value, datetime.datetime) and is_datetime(cell.number_format) == "date":
        return value.date()
    return value
