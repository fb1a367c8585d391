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
        score: of the answers `[rows, …]` to rows, with what is true of them `[rows]`.
        of_written: the same of answers and truths as they are written to a file (`Task.written`).
        proportion: whether it is the share of rows that are answered right, as accuracy is: then Wilson's interval
            holds.
        of_counts: of how many rows of each class were answered right, are of it, and were answered with it, `[…,
            classes]` each, for many draws of the rows at once; None where it cannot be told from these.
        of_draws: the same as `of_written` for many draws of the rows at once, given how often each has each row,
            `[draws, rows]`; None where one is worked out after the other.
        of_rows: of a function of the user's, which may take long or fail: the number of each row, `[rows]`, or one of
            all together, `[]`, of answers and truths as they are written; None of any other.
        written: whether answers are scored as they are written, since `score` cannot tell, which sees no names.
    """

    score: Callable[[np.ndarray, np.ndarray], float]
    of_written: Callable[[Sequence[str], Sequence[str]], float]
    proportion: bool = False
    of_counts: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    of_draws: Callable[[Sequence[str], Sequence[str], np.ndarray], np.ndarray] | None = None
    written: bool = False
    of_rows: Callable[[Sequence[str], Sequence[str]], np.ndarray] | None = None
