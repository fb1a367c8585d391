"""What tells a kind of task that a model answers without regard to the rows, as one does whose training collapsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SAME, TRUE = 0.98, 0.9
"""So large a share of the rows is given one label, although no label is true of more than that."""


class CollapseSigns:
    """Hooks of a kind of task, which by default cannot tell."""

    def one_answer(self, answers: np.ndarray, truths: np.ndarray) -> bool | None:
        """Whether nearly all rows got the same answer, although they should not. Default: None, it cannot be told.

        Args:
            answers: to the rows that a fold validates, `[rows, …]`.
            truths: what is true of them, `[rows]`.
        """
        return None

    def blind_loss(self, truths: np.ndarray) -> float | None:
        """What `loss` is of the best answer that looks at no input. Default: None, it is not known.

        Args:
            truths: what is true of the rows, `[rows]`.
        """
        return None

    @staticmethod
    def one_label(given: np.ndarray, truths: np.ndarray) -> bool:
        """Whether nearly all are given one label, although no label is true of nearly all; positions `[rows]`."""
        import numpy as np

        shares = [float(np.bincount(labels).max()) / len(labels) for labels in (given, truths)]
        return shares[0] >= SAME and shares[1] <= TRUE

    @staticmethod
    def entropy(truths: np.ndarray) -> float:
        """The cross-entropy of always giving each label the share that is true of it; positions `[rows]`."""
        import numpy as np

        shares = np.bincount(truths) / len(truths)
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares)).sum())
