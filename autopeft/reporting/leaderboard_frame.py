"""The leaderboard as a pandas frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.study.record import listed, ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from autopeft.study.record import TrialRecord

FIRST = ("number", "method", "score", "state", "trainable_params", "seconds")
"""The first columns: what most readers look for; a notebook cuts wide tables in the middle."""

MORE = (
    "name", "fold_scores", "saved_params", "saved_bytes", "predicted_memory", "measured_memory", "epochs_trained",
    "reason",
)  # fmt: skip
COUNTS = ("trainable_params", "saved_params", "saved_bytes", "predicted_memory", "measured_memory")


def leaderboard_frame(found: Sequence[TrialRecord]) -> pd.DataFrame:
    """All trials, one per row: complete ones by score, then pruned, stopped, failed and infeasible ones.

    The index is the rank. Params that are whole numbers stay whole numbers, even if some trials lack them.
    """
    import pandas as pd

    records, count = listed(found), len(ranked([*found]))
    ranks = pd.Index([*range(1, count + 1), *[None] * (len(records) - count)], dtype="Int64", name="rank")
    rows = [{column: getattr(record, column) for column in (*FIRST, *MORE)} for record in records]
    table = pd.DataFrame(rows, index=ranks, columns=[*FIRST, *MORE]).astype(dict.fromkeys(COUNTS, "Int64"))
    extra = [
        {**record.needs, **{name: v for name, v in record.params.items() if name != "method"}} for record in records
    ]
    for name in dict.fromkeys(key for row in extra for key in row):
        values = [row.get(name) for row in extra]
        table[name] = pd.Series(values, index=ranks, dtype=_dtype(values))
    return table


def _dtype(values: Sequence[object]) -> str | None:
    """The pandas type that keeps whole numbers and truth values in a column with gaps; None: pandas may choose."""
    kinds = {type(value) for value in values if value is not None}
    return {frozenset({int}): "Int64", frozenset({bool}): "boolean"}.get(frozenset(kinds))
