"""What a study maximises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


@dataclass(frozen=True)
class Metric:
    """A score: more is better. Of an error the negative is one, named `neg_…` as in scikit-learn.

    Attributes:
        score: of the answers `[rows, …]` to rows, with what is true of them `[rows]`.
    """

    score: Callable[[np.ndarray, np.ndarray], float]
