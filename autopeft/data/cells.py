"""The rule for what a cell of a table may be, and how it becomes text; the same in training and in prediction."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pandas as pd

from autopeft.common.exceptions import DataError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

WRITTEN = (
    Decimal, UUID, datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64, pd.Period,
)  # fmt: skip
"""Types of single values besides texts, truth values and numbers; they become what Python's `str` writes."""


class CellError(ValueError):
    """A cell that cannot become text.

    Attributes:
        found: what the cell is or has, as the words after "but this one"; `advice`: what to do about it.
        rule: what every cell of the column must be, as the words after "must".
    """

    def __init__(
        self,
        found: str,
        advice: str = "make each cell one text or one value, or name another column",
        rule: str = "be one text or one value",
    ) -> None:
        super().__init__(found)
        self.found, self.advice, self.rule = found, advice, rule


class FormulaError(CellError):
    """A cell of a spreadsheet whose formula failed; its text is what the cell shows, such as "#N/A"."""

    def __init__(self, shown: str) -> None:
        super().__init__(f"is the error {shown}", "fix it in the spreadsheet")
        self.shown = shown

    def __str__(self) -> str:
        return self.shown


def as_text(value: object) -> str:
    """A cell as text; whole numbers that became floats because a cell is missing lose their ".0"; bytes are decoded.

    Raises:
        CellError: it is not a single value (but a list, a mapping, an array or the like), or not finite, or not text.
    """
    if isinstance(value, str):
        return _checked(str.__str__(value))  # an Enum's own `str` would give its name
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            raise CellError("holds bytes that are not UTF-8", "write the column as UTF-8 text") from None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return _whole(int(value))
    if isinstance(value, float | np.floating | Decimal):
        if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
            raise CellError(f"is the number {value}", "give finite numbers, or texts")
        if isinstance(value, Decimal):
            return str(value)
        return _whole(int(value)) if float(value).is_integer() else str(value)
    if isinstance(value, WRITTEN):
        return str(value)
    if isinstance(value, CellError):  # found when the cell was read
        raise value
    raise CellError(f"is {_kind(value)}")


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: None, NaN, NaT or NA."""
    if isinstance(value, str):
        return False
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return isinstance(value, np.datetime64 | np.timedelta64) and bool(np.isnat(value))


def _checked(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])[1:-1]
        raise CellError(f"holds {half}, which is half a character", "fix that text") from None
    return text


def _whole(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # Python writes only some thousand digits
        raise CellError("is a whole number of thousands of digits", "put it into quotes if it is a text") from None


def _kind(value: object) -> str:
    kinds = ((Mapping, "a mapping"), (np.ndarray, "an array"), (Set, "a set"), (tuple, "a tuple"), (Sequence, "a list"))
    plain = next((name for kind, name in kinds if isinstance(value, kind)), None)
    return plain or f"a value of type {quoted(type(value).__name__)}"


@dataclass
class Fault:
    """The first cell of a column that broke a rule, and how many did.

    Attributes:
        row: its index, by the reader.
        count: number of such cells.
        error: what is wrong with the first; None where it is empty.
    """

    row: Hashable
    count: int = 0
    error: CellError | None = None


class Texts:
    """Converts cells to texts, block by block. Cells that cannot become text are remembered, to be reported at the end.

    Args:
        blank: whether texts of only white space pass.
        others: converters of columns whose cells become something else, by key.
        fillable: keys of the columns whose cells may be empty; they then become "".
    """

    def __init__(
        self,
        *,
        blank: bool = False,
        others: Mapping[str, Callable[[object], Any]] | None = None,
        fillable: Collection[str] = (),
    ) -> None:
        self._blank, self._others, self._fillable = blank, others or {}, fillable
        self.empty: dict[str, Fault] = {}
        self.odd: dict[str, Fault] = {}

    def of(self, key: str, cells: pd.Series[Any]) -> list[Any]:
        """The texts of a column's cells, or what they become instead; "" for a cell that has none."""
        values = np.asarray(cells.astype(object), dtype=object)  # also from categories and sparse columns
        texts: list[Any] = []
        for position, value in enumerate(values):
            text, error, empty = self.made(key, value)
            if getattr(text, "name", None) == "":  # an image without a file
                text.name = f"of row {cells.index[position]}"
            if error or empty:
                fault = (self.odd if error else self.empty).setdefault(key, Fault(cells.index[position], 0, error))
                fault.count += 1
            texts.append(text)
        return texts

    def made(self, key: str, value: object) -> tuple[Any, CellError | None, bool]:
        """What a cell of a column becomes, what is wrong with it, and whether it is empty but must not be."""
        fillable = key in self._fillable
        if is_missing(value):
            if not fillable:
                return "", None, True
            value = ""
        try:
            text = self._others.get(key, as_text)(value)
        except CellError as error:
            return "", error, False
        return text, None, not (self._blank or fillable or not isinstance(text, str) or text.strip())

    def check(
        self, called: str, columns: Mapping[str, str], row_name: Callable[[Any], str] = str, advice: str = ""
    ) -> None:
        """Raise an error for the first fault.

        Args:
            called: the name of the rows in the error.
            columns: key → the user's name of the column.
            row_name: gives the name of a row in the error.
            advice: what else to do about an empty cell, besides filling it or removing the row.

        Raises:
            DataError: a cell was empty, or not a single value.
        """
        for key, column in columns.items():
            if fault := self.empty.get(key):
                raise DataError(
                    f"{called}, row {row_name(fault.row)}: the column {quoted(column)} must not be empty, but it is "
                    f"(in {_rows(fault.count)} in all). Fill or remove {'them' if fault.count > 1 else 'it'}"
                    f"{advice}."
                )
        for key, column in columns.items():
            if (fault := self.odd.get(key)) and fault.error:
                raise DataError(
                    f"{called}, row {row_name(fault.row)}: every cell of the column {quoted(column)} must "
                    f"{fault.error.rule}, but this one {fault.error.found} (such cells: {fault.count}); "
                    f"{fault.error.advice}."
                )


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count > 1)}"
