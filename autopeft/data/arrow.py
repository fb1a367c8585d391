"""Reads cells from Arrow columns, of parquet files and of `datasets`: some rows at a time, and only needed columns.

The values are those that pandas would give, except that lists and mappings are Python's, and text that is not UTF-8
becomes a value that `cells` refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autopeft.data.cells import CellError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

BATCH = 512
"""Number of rows unpacked at a time: few, since a small file may have a long text in each row."""

BLOCK_ROWS, BLOCK_BYTES = 65_536, 2**24
"""The approximate size of a block: larger ones take more memory, smaller ones more time."""

FEATURES = b"huggingface"
"""Key in a parquet file's metadata: the features of a data set, as `datasets` writes them."""

CALLED = b"autopeft.called"
"""Key in a parquet file's metadata: the name of its rows in errors, for files that the user never saw."""


class ParquetFile:
    """A parquet file; only its footer is read until blocks are asked for."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._file = parquet.ParquetFile(path)
        schema = self._file.schema_arrow
        self._features = _features(schema)
        self.names: list[str] = list(schema.names)
        self.rows: int = self._file.metadata.num_rows
        self.called = (schema.metadata or {}).get(CALLED, b"").decode("utf-8", "replace")

    def blocks(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """The cells of those columns, some rows at a time; the index counts rows from 1."""
        first = 1
        for table in _gathered(self._file.iter_batches(BATCH, columns=list(columns), use_threads=False)):
            yield _with_names(_frame(table, columns, first), self._features)
            first += table.num_rows


def blocks_of_dataset(rows: Any, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The same for a `datasets.Dataset`, whatever its format is set to; class labels become their names."""
    first = 1
    chosen = rows.with_format("arrow").select_columns([*dict.fromkeys(columns)])
    for table in _gathered(batch for few in chosen.iter(BATCH) for batch in few.to_batches()):
        yield _with_names(_frame(table, columns, first), rows.features)
        first += table.num_rows


def _features(schema: Any) -> Mapping[str, Any]:
    """The features of a data set that `datasets` wrote to a parquet file, if it has class labels; else nothing."""
    found = (schema.metadata or {}).get(FEATURES, b"")
    if b"ClassLabel" not in found:
        return {}
    import datasets

    try:
        features: Mapping[str, Any] = datasets.Features.from_arrow_schema(schema)
        return features
    except (TypeError, ValueError):  # of another version
        return {}


def _with_names(frame: pd.DataFrame, features: Mapping[str, Any]) -> pd.DataFrame:
    """Class labels as their names."""
    for column in frame:
        feature = features.get(str(column))
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names:
            named = [_named(value, names) for value in frame[column]]
            frame[column] = pd.Series(named, index=frame.index, dtype=object)
    return frame


def _gathered(batches: Iterable[Any]) -> Iterator[Any]:
    """Arrow tables of several batches each."""
    import pyarrow as pa

    held: list[Any] = []
    for batch in batches:
        held.append(batch)
        if sum(few.num_rows for few in held) >= BLOCK_ROWS or sum(few.nbytes for few in held) >= BLOCK_BYTES:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _frame(batch: Any, columns: Sequence[str], first: int) -> pd.DataFrame:
    index = pd.RangeIndex(first, first + batch.num_rows, name="row")
    cells = {column: _cells(batch.column(batch.schema.get_field_index(column))) for column in columns}
    return pd.DataFrame({column: pd.Series(found, index=index, dtype=object) for column, found in cells.items()})


def _cells(column: Any) -> Any:
    """Python's values of an Arrow array."""
    import pyarrow as pa
    from pyarrow import types

    if isinstance(column, pa.ChunkedArray):
        return [cell for chunk in column.chunks for cell in _cells(chunk)]
    kind = column.type
    if types.is_dictionary(kind):
        column.indices.validate(full=True)
        values = np.empty(len(column.dictionary) + 1, dtype=object)  # the last one means no value
        values[:-1] = _cells(column.dictionary)
        return values[[len(values) - 1 if place is None else place for place in column.indices.to_pylist()]]
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        try:
            return column.to_pylist()
        except UnicodeDecodeError:
            return column.cast(pa.large_binary()).to_pylist()
    column.validate(full=True)
    if types.is_nested(kind):
        found: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
        return found
    if isinstance(kind, pa.BaseExtensionType) and not kind.extension_name.startswith("pandas."):
        return column.to_pylist()
    try:
        return column.to_pandas(integer_object_nulls=True).astype(object).array
    except pa.ArrowInvalid:  # times of day in nanoseconds
        return column.to_pylist()


def _named(value: object, names: Sequence[str]) -> object:
    """A class label, or each of a list, as its name."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        found = [_named(one, names) for one in value]
        return next((one for one in found if isinstance(one, CellError)), found)
    if value == -1:
        return CellError(
            "is -1, which means no label", "label or remove these rows, or give another split or other test rows"
        )
    if not isinstance(value, int) or not 0 <= value < len(names):
        return CellError(f"is the class {value} of {len(names)}", "give every number a name in the data set's features")
    return names[value]
