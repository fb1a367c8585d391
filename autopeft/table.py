"""Read a table of rows from wherever people keep one, with an error that says which row is at fault."""

from __future__ import annotations

import codecs
import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from autopeft.exceptions import DataError, in_a_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")
FALLBACK_ENCODING = "cp1252"
LONGEST_FIELD = 2**31 - 1
"""Characters: the most that the reader takes on any system; by itself it allows 131,072."""
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_table(
    source: Path | str,
    *,
    encoding: str | None = None,
    config: str | None = None,
    split: str = "train",
    note: Callable[[str], None] = lambda text: None,
) -> pd.DataFrame:
    """All rows of a file, a saved datasets folder or a hub data set; the index is the row as a person counts it.

    Args:
        source: a local path, or a hub id.
        encoding: of a text file; default: its byte-order mark, else UTF-8, else cp1252 with a note.
        config: of a hub data set.
        split: of a hub data set, or of a saved folder that holds several.
        note: told what was assumed.

    Raises:
        DataError: unreadable, of no known format, ragged or empty.
    """
    try:
        if isinstance(source, str):
            frame = _from_hub(source, config, split)
        elif source.is_dir():
            frame = _from_folder(source, split)
        else:
            frame = _from_file(source, encoding, note)
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be read: {' '.join(str(error).split())}") from error
    if frame.empty:
        raise DataError(f"{source} must hold at least one row below its header, but it has none.")
    return frame


def from_dataset(rows: Any) -> pd.DataFrame:
    """All rows of a `datasets.Dataset`, its class labels as their names; the index counts from 1."""
    return _numbered(_with_label_names(rows).to_pandas(), first=1)


def _from_file(path: Path, encoding: str | None, note: Callable[[str], None]) -> pd.DataFrame:
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise DataError(f"{path} must end in one of .{', .'.join(FORMATS)}, which name the format.")
    if suffix == "parquet":
        return _numbered(pd.read_parquet(path), first=1)
    text = _decode(path, encoding, note)
    if suffix in ("csv", "tsv"):
        return _delimited(text, path, "," if suffix == "csv" else "\t", note)
    if suffix == "json":
        rows = json.loads(text)
        if not isinstance(rows, list):
            raise DataError(f"{path} must hold a JSON list of objects; for one object a line, name it .jsonl.")
        return _numbered(pd.DataFrame(rows), first=1)
    return _json_lines(text, path)


def _decode(path: Path, encoding: str | None, note: Callable[[str], None]) -> str:
    raw = path.read_bytes()
    marked = next((name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    try:
        return raw.decode(chosen)
    except LookupError:
        raise DataError(f'`encoding` in [data] must be one that Python knows, but got "{encoding}".') from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if encoding or marked or b"\0" in raw:
            hint = "it looks like a binary file or UTF-16" if b"\0" in raw else "give the right `encoding` in [data]"
            raise DataError(f"{path}, line {line}, is not {chosen}; {hint}.") from None
        bad = sum(not _is_utf8(part) for part in raw.split(b"\n"))
        note(
            f"{path.name} is not pure UTF-8 ({bad} lines, the first is line {line}); it was read as "
            f"{FALLBACK_ENCODING}. Give `encoding` in [data] if that is wrong."
        )
        return raw.decode(FALLBACK_ENCODING, errors="replace")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _delimited(text: str, path: Path, delimiter: str, note: Callable[[str], None]) -> pd.DataFrame:
    """Python's own reader, not pandas': it says where each record starts and leaves "NA" a text."""
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        return _records(text, path, delimiter)
    except csv.Error as error:
        if delimiter == ",":
            raise DataError(
                f"{path}, {error}: a field that begins with a quote must end with one, and have others in it doubled."
            ) from None
        note(f"{path.name} has quotes that do not close ({error}); its quotes were read as they are.")
        return _records(text, path, delimiter, quoting=csv.QUOTE_NONE)
    finally:
        csv.field_size_limit(usual)


def _records(text: str, path: Path, delimiter: str, **options: Any) -> pd.DataFrame:
    """A row a record, of as many fields as the header.

    Raises:
        csv.Error: what is quoted cannot be told; with the line of the record.
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
    return pd.DataFrame(rows, columns=header, index=pd.Index(lines, name="row"))


def _json_lines(text: str, path: Path) -> pd.DataFrame:
    rows, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}, is not valid JSON: {error}.") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}, must be a JSON object, but is {line.strip()[:40]!r}.")
            rows.append(row)
            lines.append(number)
    return pd.DataFrame(rows, index=pd.Index(lines, name="row"))


def _from_folder(folder: Path, split: str) -> pd.DataFrame:
    import datasets

    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        raise DataError(f"{folder} is a folder, but not one that `datasets` saved (save_to_disk); give a file instead.")
    loaded = datasets.load_from_disk(str(folder))
    return from_dataset(_one_split(loaded, split, str(folder)))


def _from_hub(name: str, config: str | None, split: str) -> pd.DataFrame:
    import datasets

    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:  # of a dozen kinds: the hub's, the file formats', the library's own
        raise DataError(f"{name} cannot be read: {in_a_line(error)}") from error
    return from_dataset(_one_split(loaded, split, name))


def _one_split(loaded: Any, split: str, name: str) -> Any:
    import datasets

    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    if split not in loaded:
        raise DataError(f'{name} has no split "{split}"; it has {", ".join(loaded)}. Set it in [data].')
    return loaded[split]


def _with_label_names(rows: Any) -> Any:
    """Class labels as their names instead of their numbers."""
    import datasets

    for column, feature in rows.features.items():
        if isinstance(feature, datasets.ClassLabel):
            names = [feature.int2str(value) if value is not None and value >= 0 else None for value in rows[column]]
            rows = rows.remove_columns(column).add_column(column, names)
    return rows


def _numbered(frame: pd.DataFrame, first: int) -> pd.DataFrame:
    return frame.set_axis(pd.RangeIndex(first, first + len(frame), name="row"), axis="index")
