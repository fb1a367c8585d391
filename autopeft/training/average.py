"""A moving average of what is trained, which scores like weights whose learning rate was lowered, at no training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

WINDOW, FEWEST = 0.15, 10
"""About how many of the latest steps count: so large a share of those so far, and not fewer than that."""


class Average:
    """An exponential moving average whose window grows with the steps: its decay is 1 - 1 / max(10, 0.15 · steps).

    Over the first ten steps it is the plain mean, so that what a tensor started from has no part in it. It is taken
    element by element, so a stack of folds has the average of each.

    Attributes:
        tensors: the averages, in the order of what is trained.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = [tensor.clone() for tensor in tensors]

    def update(self, tensors: Sequence[torch.Tensor], step: int) -> None:
        """Take in what the tensors are after the step of that number, from 1."""
        decay = 1 - 1 / min(step, max(FEWEST, WINDOW * step))
        get_ema_multi_avg_fn(decay)(self.tensors, [*tensors], step)  # type: ignore[no-untyped-call]  # torch leaves it untyped
