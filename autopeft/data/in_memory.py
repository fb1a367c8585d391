"""Rows in memory, as a table and as the file from which a study reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autopeft.common.exceptions import DataError, quoted, shorten
from autopeft.common.files import whole
from autopeft.data.arrow import CALLED
from autopeft.data.cell_readers import fillable, readers, writable
from autopeft.data.cells import CellError, Texts
from autopeft.data.missing import ADVICE
from autopeft.data.table import Table, of_dataset
from autopeft.study.folder import ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from autopeft.data.cell_readers import Column
    from autopeft.study.sections import DataSection


def as_table(rows: Any, columns: Sequence[str], called: str) -> Table:
    """Rows as a table, whose errors count them from 1, and also give a frame's own index.

    Args:
        rows: a pandas frame, a `datasets.Dataset`, a list of mappings, or a list of tuples.
        columns: names of the values in a tuple.
        called: the name of the rows in errors.

    Raises:
        DataError: none of these, or a tuple of another length.
    """
    if isinstance(rows, pd.DataFrame):
        return _of_frame(rows, called)
    if all(hasattr(rows, name) for name in ("features", "with_format", "num_rows")):
        return of_dataset(rows, called)
    kinds = "a pandas frame, a datasets.Dataset, a path, or a list of dicts or of tuples"
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise DataError(f"{called}: rows must be {kinds}, but got {type(rows).__name__}.")
    if rows and isinstance(rows[0], Mapping):
        keys = {str(key): key for row in rows if isinstance(row, Mapping) for key in row}
        _check_rows(rows, called, "a dict like the first", lambda row: isinstance(row, Mapping))
        return Table(
            called, list(keys), lambda names: _block({name: [row.get(keys[name]) for row in rows] for name in names})
        )
    rule = f"a dict or a tuple ({', '.join(columns)})"
    _check_rows(rows, called, rule, lambda row: _is_tuple(row) and len(row) == len(columns))
    places = {name: place for place, name in enumerate(columns)}
    return Table(called, columns, lambda names: _block({name: [row[places[name]] for row in rows] for name in names}))


def called_of(rows: Any, argument: str) -> str:
    """The name in errors of rows given as an argument, or the name in a frame's `attrs` under `CALLED`."""
    if isinstance(rows, pd.DataFrame):
        return str(rows.attrs.get(CALLED, f"the frame given as {argument}"))
    form = "data set" if hasattr(rows, "features") else "list" if isinstance(rows, list | tuple) else "value"
    return f"the {form} given as {argument}"


def _is_tuple(row: Any) -> bool:
    return isinstance(row, Sequence) and not isinstance(row, str | bytes)


def _check_rows(rows: Sequence[Any], called: str, rule: str, holds: Callable[[Any], bool]) -> None:
    for number, row in enumerate(rows, 1):
        if not holds(row):
            raise DataError(f"{called}, row {number}, must be {rule}, but is {shorten(row)}.")


def _block(columns: Mapping[str, Any]) -> Iterator[pd.DataFrame]:
    yield pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()}).rename(
        index=lambda place: place + 1
    )


def _of_frame(frame: pd.DataFrame, called: str) -> Table:
    names = [str(name) for name in frame.columns]
    plain = frame.index.equals(pd.RangeIndex(len(frame)))

    def row_name(number: Any) -> str:
        return str(number) if plain else f"{number} (index {shorten(frame.index[number - 1])})"

    def cells(wanted: Sequence[str]) -> Iterator[pd.DataFrame]:
        columns = {name: frame.iloc[:, names.index(name)] for name in wanted}  # other names may come several times
        return _block({name: np.asarray(column.astype(object), dtype=object) for name, column in columns.items()})

    return Table(called, names, cells, row_name)


def split_of(rows: Any, section: DataSection) -> tuple[Any, Any | None]:
    """The training rows, and the test rows if `rows` is a `datasets.DatasetDict` that has some.

    Raises:
        DataError: it has no split with the name in [data].
    """
    if not (isinstance(rows, Mapping) and hasattr(rows, "num_rows")):
        return rows, None
    wanted = [section.train_split, *([section.test_split] if "test_split" in section.model_fields_set else [])]
    for split in wanted:
        if split not in rows:
            raise DataError(f"the data has no split {quoted(split)}; it has {', '.join(rows)}. Set it in `data`.")
    return rows[section.train_split], rows.get(section.test_split)


def keep(
    table: Table, columns: Mapping[str, str], output: Path, task: Iterable[Column] = (), *, empty: bool = False
) -> Path:
    """Write rows as texts to a study's output folder, once: the file's name identifies the same rows.

    Images in files are written as paths, others as bytes.

    Args:
        table: the rows.
        columns: the setting that names a column → its name; no other column is kept.
        output: of the study.
        task: the columns of the kind of task, which say where images are.
        empty: whether cells may be empty, because the study leaves out such rows when it reads them.

    Raises:
        DataError: a column is missing, or a cell is empty or not a single value.
    """
    table.require(columns)
    reads: dict[str, list[Callable[[object], Any]]] = {}
    for key, read_cell in readers(task, table.folder).items():
        if key in columns:
            reads.setdefault(columns[key], []).append(read_cell)
    read = {name: _whole(several) if len(several) > 1 else several[0] for name, several in reads.items()}
    texts = Texts(others=read, fillable={columns[key] for key in fillable(task) if key in columns})
    names = [name for name in table.names if name in columns.values()]
    blocks = [{name: texts.of(name, block[name]) for name in names} for block in table.blocks(names)]
    if empty:
        texts.empty.clear()
    texts.check(table.called, {name: name for name in columns.values()}, table.row_name, ADVICE)
    plain = pd.DataFrame({name: [text for block in blocks for text in block[name]] for name in names})
    if plain.empty:
        raise DataError(f"{table.called} must hold at least one row, but has none.")
    digest = hashlib.sha256(plain.to_csv(index=False).encode()).hexdigest()
    path = output / ROWS / f"{digest[:16]}.parquet"
    if not _is_kept(path, table.called):
        _write(plain.map(lambda cell: None if empty and cell == "" else writable(cell)), path, table.called)
    return path


def _whole(reads: Sequence[Callable[[object], Any]]) -> Callable[[object], str]:
    """A converter for a cell that several columns read: it keeps the cell as JSON, if all of them can read it."""

    def read(cell: object) -> str:
        for each in reads:
            each(cell)
        return cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False, default=_plain)

    return read


def _plain(value: Any) -> Any:
    """An array or a NumPy number in a form that JSON can hold."""
    if not isinstance(value, np.ndarray | np.generic):
        raise CellError(f"holds a value of type {quoted(type(value).__name__)}", "write it as text")
    return value.tolist()


def columns_of(rows: Any, called: str) -> list[str]:
    """The names of the columns of rows that `as_table` takes; empty for tuples.

    Raises:
        DataError: as in `as_table`.
    """
    tuples = isinstance(rows, Sequence) and not isinstance(rows, str) and rows and _is_tuple(rows[0])
    return [] if tuples else [*as_table(rows, (), called).names]


def _is_kept(path: Path, called: str) -> bool:
    """Whether the rows are kept already, with the present name for errors."""
    from pyarrow import ArrowException, parquet

    try:
        return (parquet.read_schema(path).metadata or {}).get(CALLED) == called.encode()
    except (OSError, ArrowException):
        return False


def _write(plain: pd.DataFrame, path: Path, called: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    content = pa.Table.from_pandas(plain, preserve_index=False)
    content = content.replace_schema_metadata({**(content.schema.metadata or {}), CALLED: called.encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path, lasting=True) as draft:
        parquet.write_table(content, draft)
