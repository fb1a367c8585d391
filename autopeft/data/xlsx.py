"""Reads the rows of a sheet of an xlsx file with openpyxl."""

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
"""openpyxl's name for the type of a cell whose formula failed."""


def rows(path: Path, choose: Callable[[list[str]], str]) -> Iterator[list[Any]]:
    """The cells of each row, beginning with the first; None for an empty cell.

    A formula has the value that the spreadsheet program computed.

    Args:
        path: of the file.
        choose: gives the name of one of the sheets.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about parts that it leaves out, such as drawings
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        with closing(book):
            sheet = book[choose([sheet.title for sheet in book.worksheets])]
            sheet.reset_dimensions()  # some programs write wrong ones, and rows would be cut
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
