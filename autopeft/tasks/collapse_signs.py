"""How a kind of task notices that a model ignores the rows, as it does after its training collapsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SAME, TRUE = 0.98, 0.9
"""A model collapsed if at least the first share of the rows gets one label, and no label is true of more than the
second."""


class CollapseSigns:
    """Hooks of a kind of task; by default nothing is noticed."""

    def one_answer(self, answers: np.ndarray, truths: np.ndarray) -> bool | None:
        """Whether nearly all rows got the same answer, although they should not. Default: None, not known.

        Args:
            answers: to the rows that a fold validates, `[rows, …]`.
            truths: what is true of them, `[rows]`.
        """
        return None

    def blind_loss(self, truths: np.ndarray) -> float | None:
        """The `loss` of the best answer that looks at no input. Default: None, not known.

        Args:
            truths: what is true of the rows, `[rows]`.
        """
        return None

    @staticmethod
    def one_label(given: np.ndarray, truths: np.ndarray) -> bool:
        """Whether nearly all rows get one label, although no label is true of nearly all; positions `[rows]`."""
        import numpy as np

        shares = [float(np.bincount(labels).max()) / len(labels) for labels in (given, truths)]
        return shares[0] >= SAME and shares[1] <= TRUE

    @staticmethod
    def entropy(truths: np.ndarray) -> float:
        """The cross-entropy of giving every row each label with its share of the rows; positions `[rows]`."""
        import numpy as np

        shares = np.bincount(truths) / len(truths)
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum())
