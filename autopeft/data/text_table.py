"""Reads tables that are text: csv, tsv, JSON, tagged words; errors say which line or row is at fault."""

from __future__ import annotations

import codecs
import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from autopeft.common.exceptions import DataError, quoted, shorten
from autopeft.common.free_memory import free_memory
from autopeft.common.units import format_bytes
from autopeft.data import conll, squad
from autopeft.data.cells import CellError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Cells = Callable[[Sequence[str]], pd.DataFrame]

FORMATS = ("csv", "tsv", "jsonl", "json", *conll.FORMATS)
FALLBACK_ENCODING = "cp1252"
LONGEST_FIELD = 2**31 - 1
"""Most characters of a field that the reader takes on any system; its default is 131,072."""
LONGEST_NUMBER = 4_000
"""Most digits of a number; Python reads at most 4,300."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""UTF-32 comes before UTF-16: its little-endian mark begins with UTF-16's."""
MARK = "\ufeff"
"""The mark as a character: a named encoding may keep it in the text."""
MEMORY = {"json": 4, "jsonl": 4}
"""Bytes of memory needed, at least, to read one byte of a format."""

USUAL = 7
"""The same for any other format."""


def read(path: Path, suffix: str, encoding: str | None, note: Callable[[str], None]) -> tuple[list[str], Cells]:
    """The names of the columns, and a function that gives the cells of some of them.

    Args:
        path: of the file.
        suffix: its format.
        encoding: default: its byte-order mark, else UTF-8, else cp1252 with a note.
        note: called with what was assumed.

    Raises:
        DataError: it does not have that format or encoding, or is ragged.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    needed = size * MEMORY.get(suffix, USUAL)
    if needed > (free := free_memory()):
        raise DataError(
            f"{path} has {format_bytes(size)}, and reading it takes about {format_bytes(needed)} of memory, but "
            f"{format_bytes(free)} are free; give a parquet file, which is read in parts, or fewer rows."
        )
    text = _decode(path, encoding, note)
    if suffix in ("csv", "tsv"):
        return _delimited(text, path, "," if suffix == "csv" else "\t", note)
    if suffix in conll.FORMATS:
        return conll.sentences(text, path, note)
    rows, numbers = (_json_rows if suffix == "json" else _json_lines)(text, path)
    index = pd.Index(numbers, name="row")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, lambda columns: pd.DataFrame(
        {column: pd.Series([row.get(column) for row in rows], index=index, dtype=object) for column in columns}
    )


def _decode(path: Path, encoding: str | None, note: Callable[[str], None]) -> str:
    raw = path.read_bytes()
    marked = next((name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    try:
        return raw.decode(chosen).removeprefix(MARK)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if encoding or marked or b"\0" in raw:
            hint = "it looks like a binary file or UTF-16" if b"\0" in raw else "give the right `encoding` in [data]"
            raise DataError(f"{path}, line {line}, is not {chosen}; {hint}.") from None
        return _mixed(raw, path.name, line, note)
    except UnicodeError:
        raise DataError(f"{path} is not {quoted(chosen)}; give the right `encoding` in [data].") from None
    except (LookupError, ValueError):
        raise DataError(f"`encoding` in [data] must be one that Python knows, but got {quoted(chosen)}.") from None


def _mixed(raw: bytes, name: str, first: int, note: Callable[[str], None]) -> str:
    """Text of which some lines are not UTF-8: these are read as cp1252, and all lines if most were not UTF-8.

    A line of cp1252 may be UTF-8 by chance, so the lines with more than ASCII decide together.
    """
    lines = raw.split(b"\n")
    bad, good = ([_is_utf8(line) for line in lines if not line.isascii()].count(found) for found in (False, True))
    which = "these lines were" if good > bad else "it was"
    note(
        f"{name} is not pure UTF-8 ({bad} lines, the first is line {first}); {which} read as {FALLBACK_ENCODING}. Give "
        "`encoding` in [data] if that is wrong."
    )
    if good <= bad:
        return raw.decode(FALLBACK_ENCODING, errors="replace")
    return "\n".join(
        line.decode() if _is_utf8(line) else line.decode(FALLBACK_ENCODING, errors="replace") for line in lines
    )


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _delimited(text: str, path: Path, delimiter: str, note: Callable[[str], None]) -> tuple[list[str], Cells]:
    """Uses Python's own reader, not pandas': it says where each record starts, and keeps "NA" as text."""
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        return _records(text, path, delimiter)
    except csv.Error as error:
        if delimiter == ",":
            raise DataError(
                f"{path}, {error}: a field that begins with a quote must also end with a quote, and quotes inside it "
                "must be doubled."
            ) from None
        note(f"{path.name} has quotes that are not closed ({error}); all its quotes were read as plain characters.")
        return _records(text, path, delimiter, quoting=csv.QUOTE_NONE)
    finally:
        csv.field_size_limit(usual)


def _records(text: str, path: Path, delimiter: str, **options: Any) -> tuple[list[str], Cells]:
    """One row per record, each with as many fields as the header.

    Raises:
        csv.Error: quotes are ambiguous; with the line of the record.
        DataError: a record has another number of fields.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, **options)
    rows: list[list[str]] = []
    lines: list[int] = []
    header: list[str] = []
    end = 0
    try:
        for record in reader:
            start, end = end + 1, reader.line_num
            if not header:
                header = [name.strip() for name in record]
            elif record:
                if len(record) != len(header):
                    raise DataError(
                        f"{path}, line {start}: a row must have {len(header)} fields like the header, but this one has "
                        f"{len(record)}; put quotes around fields that hold a {'comma' if delimiter == ',' else 'tab'}."
                    )
                rows.append(record)
                lines.append(start)
    except csv.Error as error:
        raise csv.Error(f"line {end + 1} ({error})") from None
    index = pd.Index(lines, name="row")

    def cells(columns: Sequence[str]) -> pd.DataFrame:
        places = {column: header.index(column) for column in columns}
        return pd.DataFrame(
            {name: pd.Series([row[place] for row in rows], index=index, dtype=object) for name, place in places.items()}
        )

    return header, cells


def _json_rows(text: str, path: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    try:
        rows = json.loads(text, parse_int=_whole)
    except RecursionError:
        raise DataError(f"{path} is nested too deeply; give a text and a label in each row.") from None
    if squad.is_nested(rows):
        return squad.rows_of(rows, path)
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a JSON list of objects; if each line is an object, name it .jsonl.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {number}, must be a JSON object, but is {shorten(row, 40)}.")
    return rows, list(range(1, len(rows) + 1))


def _json_lines(text: str, path: Path) -> tuple[list[dict[str, Any]], Sequence[int]]:
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line, parse_int=_whole)
            except RecursionError:
                raise DataError(
                    f"{path}, line {number}, is nested too deeply; give a text and a label in each row."
                ) from None
            except ValueError as error:
                raise DataError(f"{path}, line {number}, is not valid JSON: {error}.") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}, must be a JSON object, but is {shorten(line.strip(), 40)}.")
            rows.append(row)
            lines.append(number)
    return rows, lines


def _whole(digits: str) -> int | CellError:
    """A whole number; one with too many digits is a cell that cannot become text, if its column is read."""
    if len(digits) <= LONGEST_NUMBER:
        return int(digits)
    return CellError(f"is a whole number of {len(digits)} digits", "put it into quotes if it is a text")
