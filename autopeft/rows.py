"""Rows in memory: as a table, and as the file that a study reads them from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from autopeft.exceptions import DataError
from autopeft.files import whole
from autopeft.table import from_dataset

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.spec import DataSection

FOLDER = "rows"
"""In a study's output folder: the rows it was given in memory."""


def as_frame(rows: Any, columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a table.

    Args:
        rows: a pandas frame, a `datasets.Dataset`, a list of mappings, or a list of tuples.
        columns: what the places of a tuple are.

    Raises:
        DataError: none of these, or a tuple of another length.
    """
    if isinstance(rows, pd.DataFrame):
        return rows
    if hasattr(rows, "features") and hasattr(rows, "to_pandas"):
        return from_dataset(rows)
    kinds = "a pandas frame, a datasets.Dataset, a path, or a list of dicts or of tuples"
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise DataError(f"rows must be {kinds}, but got {type(rows).__name__}.")
    if all(isinstance(row, Mapping) for row in rows):
        return pd.DataFrame(list(rows))
    for number, row in enumerate(rows):
        if isinstance(row, str | bytes) or not isinstance(row, Sequence) or len(row) != len(columns):
            raise DataError(
                f"row {number} of a list must be a dict or a tuple ({', '.join(columns)}), but got {row!r}."
            )
    return pd.DataFrame(list(rows), columns=list(columns))


def split_of(rows: Any, section: DataSection) -> tuple[Any, Any | None]:
    """The training rows, and the test rows where `rows` is a `datasets.DatasetDict` that holds some.

    Raises:
        DataError: it has no split of the name that [data] gives.
    """
    if not (isinstance(rows, Mapping) and hasattr(rows, "num_rows")):
        return rows, None
    wanted = [section.train_split, *([section.test_split] if "test_split" in section.model_fields_set else [])]
    for split in wanted:
        if split not in rows:
            raise DataError(f'the data has no split "{split}"; it has {", ".join(rows)}. Set it in `data`.')
    return rows[section.train_split], rows.get(section.test_split)


def keep(frame: pd.DataFrame, output: Path) -> Path:
    """Write a table to a study's output folder, once: its name tells whether the same rows come again.

    Cells that parquet knows no type for, as in a column of numbers and texts, become texts.
    """
    plain = frame.set_axis(frame.columns.map(str), axis="columns").reset_index(drop=True)
    for column in plain:
        if pd.api.types.is_object_dtype(plain[column]):
            plain[column] = plain[column].map(str, na_action="ignore")
    digest = hashlib.sha256(plain.to_csv(index=False).encode()).hexdigest()
    path = output / FOLDER / f"{digest[:16]}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path, lasting=True) as draft:
            plain.to_parquet(draft, index=False)
    return path
