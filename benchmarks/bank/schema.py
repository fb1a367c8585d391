"""The tables of the bank: their columns, and parts that are written whole and put together later.

A part is what one call of `curves.trained` gives: the runs of the folds of one candidate on one task, and their points.
It is written once and never changed; whoever finds it does not record it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import parquet

from autopeft.common.files import whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

NAME = pa.dictionary(pa.int32(), pa.string())

TASKS = pa.schema(
    {
        "task": NAME,
        "group": NAME,
        "kind": NAME,
        "metric": NAME,
        "classes": pa.int16(),
        "source": pa.string(),
        "licence": pa.string(),
        "test_rows": pa.int32(),
        "majority": pa.float32(),
        "mean_tokens": pa.float32(),
        "test_half_seed": pa.int32(),
    }
)
CONFIGS = pa.schema(
    {
        "config": pa.string(),
        "method": NAME,
        "origin": NAME,
        "params": pa.string(),
        "lr": pa.float32(),
        "batch": pa.int16(),
        "trained_share": pa.float32(),
    }
)
RUNS = pa.schema(
    {
        "run": pa.string(),
        "config": pa.string(),
        "task": NAME,
        "size": pa.int16(),
        "model": NAME,
        "split_seed": pa.int16(),
        "fold": pa.int8(),
        "seed": pa.int16(),
        "precision": NAME,
        "schedule": NAME,
        "planned_steps": pa.int32(),
        "rows_per_step": pa.int16(),
        "trained_params": pa.int32(),
        "state": NAME,
        "reason": pa.string(),
        "seconds_per_row": pa.float32(),
        "machine": pa.string(),
        "code": pa.string(),
        "recorded": pa.timestamp("s", tz="UTC"),
    }
)
POINTS = pa.schema(
    {
        "run": pa.string(),
        "steps": pa.int32(),
        "epochs": pa.float32(),
        "rows": pa.int32(),
        "weights": NAME,
        "train_loss": pa.float32(),
        "val_score": pa.float32(),
        "val_loss": pa.float32(),
        "val_brier": pa.float32(),
        "val_largest_share": pa.float32(),
        "grad_norm": pa.float32(),
        "seconds": pa.float32(),
        "test_score_a": pa.float32(),
        "test_score_b": pa.float32(),
        "test_loss": pa.float32(),
    }
)

DONE, DIVERGED, COLLAPSED, REFUSED = "done", "diverged", "collapsed", "refused"
"""States of a run. A collapsed one was trained to its end; a diverged one has the points before it diverged."""

RAW, EMA, COOLED = "raw", "ema", "cooled"
"""Weights of a point: as they are, averaged over the latest steps, or after a cooldown that ends at this step."""

REFIT = -1
"""The fold of a run on all rows, which has no validation rows."""

ENSEMBLE = -2
"""The fold of what stands for all folds together: the mean of their models' answers to the test rows, nothing else."""


def write(table: pa.Table, path: Path, groups: Iterable[pa.Table] | None = None) -> None:
    """Write a table whole or not at all, as one row group or as `groups`."""
    with whole(path) as draft, parquet.ParquetWriter(draft, table.schema, compression="zstd") as file:
        for group in groups if groups is not None else (table,):
            file.write_table(group, row_group_size=max(1, len(group)))


def rows(schema: pa.Schema, found: list[Mapping[str, Any]]) -> pa.Table:
    """A table of rows; what a row lacks is null, and what the schema lacks is an error."""
    unknown = {name for row in found for name in row} - {*schema.names}
    if unknown:
        raise ValueError(f"rows must have columns of the schema, but have {', '.join(sorted(unknown))}.")
    return pa.Table.from_pylist([dict(row) for row in found], schema=schema)


def read(path: Path, schema: pa.Schema) -> pa.Table:
    """A table with exactly these columns; empty where there is no file."""
    if not path.is_file():
        return schema.empty_table()
    return parquet.read_table(path, columns=schema.names).cast(schema)
