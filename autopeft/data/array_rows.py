"""Rows as scikit-learn gives them: lists, arrays and frames; the errors use its own words."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import pandas as pd

from autopeft.data.cells import Texts


def texts_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Each cell as text, by the rule for a study's rows.

    Raises:
        ValueError: a cell is missing, or is not a single value.
    """
    texts = Texts(blank=True)
    cells = cells.set_axis(range(1, len(cells) + 1), axis="index")
    found = pd.DataFrame({place: texts.of(str(place), cells.iloc[:, place]) for place in range(cells.shape[1])})
    if texts.empty:
        raise ValueError("Input X contains NaN or None; every row needs its text.")
    for fault in texts.odd.values():
        what = fault.error.found if fault.error else "is none"
        raise ValueError(f"X must hold one text or one value in each cell, but a cell of row {fault.row} {what}.")
    return found


def one_column(texts: Any) -> np.ndarray:
    """A list of texts as a table with one column.

    Raises:
        ValueError: an item is not a text.
    """
    column = np.array([*texts, None], dtype=object)[:-1]  # None keeps numpy from converting them
    odd = next((value for value in column if not isinstance(value, str)), None)
    if odd is not None or any(value is None for value in column):
        raise ValueError(
            f"X with one dimension must hold texts, but has {odd!r}. Reshape your data with X.reshape(-1, 1) if it "
            "is one column of a table, or X.reshape(1, -1) if it is one row."
        )
    return column.reshape(-1, 1)


def several(column: Any) -> str:
    """What is wrong with a column whose rows hold several values each; "" where they do not."""
    if getattr(column, "ndim", 1) > 1:
        return "" if column.shape[1:] == (1,) else f"it has {column.shape[1]} columns"
    cells = column if isinstance(column, list | tuple) or str(getattr(column, "dtype", "")) == "object" else ()
    counts = [
        cell.size if isinstance(cell, np.ndarray) else len(cell) if isinstance(cell, list | tuple | Set) else 1
        for cell in cells
    ]
    row = next((row for row, count in enumerate(counts, 1) if count != 1), 0)
    return f"row {row} has {counts[row - 1]}" if row else ""
