"""The names of a table's columns, told from its beginning: enough to check a study file in a moment."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from autopeft.data.table import FORMATS, open_table
from autopeft.data.text_table import BYTE_ORDER_MARKS, FALLBACK_ENCODING, LONGEST_FIELD, MARK

if TYPE_CHECKING:
    from pathlib import Path

READ = 2**20
"""Bytes that are read of a text file."""


def header(path: Path, encoding: str | None = None) -> list[str] | None:
    """The names of a file's columns; None where more would have to be read to tell.

    Args:
        path: of a file.
        encoding: of a text file; default: as for reading its rows.

    Raises:
        DataError: it is of no known format, or no file.
    """
    suffix = path.suffix.lower().lstrip(".")
    if suffix in ("csv", "tsv"):
        return _delimited(path, encoding, "," if suffix == "csv" else "\t")
    if suffix == "jsonl":
        return _json_lines(path, encoding)
    if suffix == "parquet" or suffix not in FORMATS:
        return list(open_table(path, encoding=encoding).names)
    return None


def _beginning(path: Path, encoding: str | None) -> tuple[str, bool]:
    """Text of the file, and whether it is all of it."""
    with path.open("rb") as file:
        raw = file.read(READ)
        whole = not file.read(1)
    marked = next((name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)), None)
    try:
        return raw.decode(encoding or marked or "utf-8", "strict" if whole else "ignore").removeprefix(MARK), whole
    except UnicodeError:
        return raw.decode(FALLBACK_ENCODING, "replace"), whole


def _delimited(path: Path, encoding: str | None, delimiter: str) -> list[str] | None:
    text, whole = _beginning(path, encoding)
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip() for name in next((record for record in records if record), [])]
        complete = whole or records.line_num <= text.count("\n")
    except csv.Error:  # told when the rows are read
        return None
    finally:
        csv.field_size_limit(usual)
    return names if complete else None


def _json_lines(path: Path, encoding: str | None) -> list[str] | None:
    text, whole = _beginning(path, encoding)
    if not whole:  # a later row may have another column
        return None
    try:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError):  # told when the rows are read
        return None
    return list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
