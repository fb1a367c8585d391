"""Reads a table of rows from any supported source; errors say which row is at fault."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from autopeft.common.exceptions import DataError, in_a_line, nearest, quoted
from autopeft.data import arrow, image_folder, spreadsheet, text_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

FORMATS = (*text_table.FORMATS, "parquet", *spreadsheet.FORMATS)
LONGEST_REASON = 200
"""Number of characters of a library's message that an error repeats."""


@dataclass(frozen=True)
class Table:
    """Rows that are read when they are asked for, and only the columns that are asked for.

    Attributes:
        called: the name of the rows in errors: a file, a data set and its split, an argument.
        names: of the columns; one may come several times.
        cells: gives the cells of some columns, block by block; the index counts rows from 1.
        row_name: gives the name in errors of a row with that index.
        folder: where relative paths in its cells start; default: the current folder.
    """

    called: str
    names: Sequence[str]
    cells: Callable[[Sequence[str]], Iterator[pd.DataFrame]]
    row_name: Callable[[Any], str] = str
    folder: Path | None = None

    def blocks(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """The cells of those columns, each of which must exist once.

        Raises:
            DataError: they cannot be read.
        """
        with reading(self.called):
            yield from self.cells([*dict.fromkeys(columns)])

    def require(self, columns: Mapping[str, str], advice: str = "Name the right one as `{key}` in [data].") -> None:
        """Check that each column exists once.

        Args:
            columns: the setting that names a column → its name.
            advice: what to do if one is missing.

        Raises:
            DataError: one does not exist once, or the table has no columns.
        """
        if not self.names:
            raise nothing_in(self.called)
        for key, column in columns.items():
            count = list(self.names).count(column)
            if count == 0:
                raise DataError(
                    f"{self.called} has no column {quoted(column)}; {nearest(column, self.names)} "
                    f"{advice.format(key=key)}"
                )
            if count > 1:
                raise DataError(
                    f"{self.called} must have the column {quoted(column)} once, but has it several times; rename the "
                    "others."
                )


def read_table(source: Path | str, columns: Sequence[str] | None = None, **options: Any) -> pd.DataFrame:
    """All rows at once.

    Args:
        source: what to read.
        columns: those to read. Default: all.
        options: of `open_table`.

    Raises:
        DataError: it cannot be read, has no known format, is ragged or empty, or lacks a column.
    """
    return _all_rows(open_table(source, **options), columns)


def _all_rows(table: Table, columns: Sequence[str] | None) -> pd.DataFrame:
    wanted = list(table.names if columns is None else columns)
    table.require({name: name for name in wanted}, "Rename the right one.")
    found = list(table.blocks(wanted))
    if not sum(map(len, found)):
        raise nothing_in(table.called)
    return pd.concat(found)


def nothing_in(called: str) -> DataError:
    """The error for a table without rows."""
    return DataError(f"{called} must hold at least one row below its header, but it has none.")


def open_table(
    source: Path | str,
    *,
    encoding: str | None = None,
    config: str | None = None,
    split: str = "train",
    sheet: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Table:
    """A file, a saved datasets folder or a hub data set.

    Args:
        source: a local path, or a hub id.
        encoding: of a text file; default: its byte-order mark, else UTF-8, else cp1252 with a note.
        config: of a hub data set.
        split: of a hub data set, or of a saved folder that holds several.
        sheet: of a spreadsheet; default: the first.
        note: called with what was assumed.

    Raises:
        DataError: it cannot be read, or has no known format.
    """
    with reading(str(source)):
        if isinstance(source, str):
            return _from_hub(source, config, split)
        if source.is_dir():
            return _from_folder(source, split, note)
        return _from_file(source, encoding, sheet, note)


def of_dataset(rows: Any, called: str) -> Table:
    """A `datasets.Dataset` as a table, with its class labels as names."""
    return Table(called, rows.column_names, lambda columns: arrow.blocks_of_dataset(rows, columns))


@contextmanager
def reading(called: str) -> Iterator[None]:
    """Turn any error while rows are read into one sentence: libraries raise a dozen kinds of errors.

    Raises:
        DataError: for any error in the block.
    """
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{called} needs more memory to read than is free; give fewer rows.") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        cut = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
        raise DataError(f"{called} cannot be read: {cut}") from error
    except Exception as error:
        raise DataError(f"{called} cannot be read: {in_a_line(error)}") from error


def _from_images(folder: Path, note: Callable[[str], None]) -> Table:
    found = image_folder.find(folder)
    if not found.images:
        raise DataError(
            f"{folder} is a folder, but neither a folder that `datasets` saved (save_to_disk) nor a folder of images "
            "with a sub-folder for each class; give a file instead."
        )
    if parts := found.parts:
        raise DataError(
            f"{folder} must have a folder for each class, but has {' and '.join(parts)}, which are parts of a data "
            f'set; give them one by one, such as `train = "{folder.name}/{parts[-1]}"` and `test = …` in [data].'
        )
    for told in found.told:
        note(told)
    return Table(str(folder), found.names, found.blocks, found.row_name, folder)


def _from_file(path: Path, encoding: str | None, sheet: str | None, note: Callable[[str], None]) -> Table:
    suffix = path.suffix.lower().lstrip(".")
    spreadsheet.require(suffix, path)
    if suffix not in FORMATS:
        raise DataError(f"{path} must end in one of .{', .'.join(FORMATS)}, which name the format.")
    if path.exists() and not path.is_file():  # reading from a pipe may never end
        raise DataError(f"{path} must be a file, but is a pipe or a device; write its content to a file first.")
    if suffix == "parquet":
        file = arrow.ParquetFile(path)
        return Table(file.called or str(path), file.names, file.blocks, folder=path.parent)
    if suffix in spreadsheet.FORMATS:
        names, cells = spreadsheet.read(path, suffix, sheet, note)
    else:
        names, cells = text_table.read(path, suffix, encoding, note)
    return Table(str(path), names, lambda columns: iter([cells(columns)]), folder=path.parent)


def _from_folder(folder: Path, split: str, note: Callable[[str], None]) -> Table:
    if not any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return _from_images(folder, note)
    import datasets

    return _one_split(datasets.load_from_disk(str(folder)), split, str(folder))


def _from_hub(name: str, config: str | None, split: str) -> Table:
    import datasets

    try:
        loaded = datasets.load_dataset(name, config)
    except Exception as error:  # from the hub, the file formats, or the library itself
        raise DataError(f"{name} cannot be read: {in_a_line(error)}") from error
    return _one_split(loaded, split, name)


def _one_split(loaded: Any, split: str, name: str) -> Table:
    import datasets

    if not isinstance(loaded, datasets.DatasetDict):
        return of_dataset(loaded, name)
    if split not in loaded:
        raise DataError(f"{name} has no split {quoted(split)}; it has {', '.join(loaded)}. Set it in [data].")
    return of_dataset(loaded[split], f"{name}, split {quoted(split)}")
