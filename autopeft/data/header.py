"""Reads the names of a table's columns from its beginning, to check a study file quickly."""

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
"""Number of bytes read of a text file."""


def header(path: Path, encoding: str | None = None) -> list[str] | None:
    """The names of a file's columns; None if more must be read to know them.

    Args:
        path: of a file.
        encoding: of a text file; default: as for reading its rows.

    Raises:
        DataError: it has no known format, or is not a file.
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
    """The beginning of the file's text, and whether it is all of it."""
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
    except csv.Error:  # reported when the rows are read
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
    except (ValueError, RecursionError):  # reported when the rows are read
        return None
    return list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))
