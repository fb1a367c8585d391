"""What a study maximises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np


@dataclass(frozen=True)
class Metric:
    """A score; higher is better. The negative of an error is a score too, named `neg_…` as in scikit-learn.

    Attributes:
        score: computes it from the answers to rows `[rows, …]` and their truths `[rows]`.
        of_written: the same from answers and truths as they are written to a file (`Task.written`).
        proportion: whether it is the share of rows that are answered right, like accuracy: then Wilson's interval
            holds.
        of_counts: computes it for many draws of the rows at once from the number of rows of each class that were
            answered right, that belong to it, and that were answered with it, `[…, classes]` each; None if these are
            not enough.
        of_draws: the same as `of_written` for many draws of the rows at once, given how often each has each row,
            `[draws, rows]`; None if draws are scored one by one.
        of_rows: only of a user's function, which may take long or fail: a number for each row, `[rows]`, or one for all
            together, `[]`, from answers and truths as they are written; else None.
        written: whether answers are scored as they are written, because `score` sees no names and cannot score them.
    """

    score: Callable[[np.ndarray, np.ndarray], float]
    of_written: Callable[[Sequence[str], Sequence[str]], float]
    proportion: bool = False
    of_counts: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    of_draws: Callable[[Sequence[str], Sequence[str], np.ndarray], np.ndarray] | None = None
    written: bool = False
    of_rows: Callable[[Sequence[str], Sequence[str]], np.ndarray] | None = None
