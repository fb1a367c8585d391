"""Rows whose columns are named as in the study's table, or by the task's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.exceptions import DataError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def keyed(rows: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """The needed columns, named by their keys.

    Args:
        rows: their columns are named by key, or as in the study's table.
        names: the name in the study's table of each needed column, by its key.

    Raises:
        DataError: a column is missing or comes several times, or the rows have columns of both names.
    """
    found = [*rows.columns]
    keys, others = ({*wanted} <= {*found} for wanted in (names, names.values()))
    key = next((key for key, name in names.items() if name not in names), None)
    if keys and others and key:
        raise DataError(
            f"the study read `{key}` from the column {quoted(names[key])}, but the rows to predict have columns of "
            "both names; remove the one that you do not mean."
        )
    wanted = [*names] if keys else [*names.values()]
    missing = next((name for name in wanted if found.count(name) != 1), None)
    if missing is not None or rows.empty:
        lack = "no row" if missing is None else f"{'several columns' if missing in found else 'no column'} {missing!r}"
        raise DataError(f"prediction needs rows with the columns {', '.join(wanted)}, but got {lack}.")
    return rows[wanted].set_axis([*names], axis="columns")
