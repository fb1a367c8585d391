"""A moving average of trained tensors: it scores like weights after a learning-rate decay, without more training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim.swa_utils import get_ema_multi_avg_fn

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

WINDOW, FEWEST = 0.15, 10
"""How many of the latest steps count, roughly: this share of the steps so far, and at least this many."""


class Average:
    """An exponential moving average whose window grows with the steps: its decay is 1 - 1 / max(10, 0.15 · steps).

    Over the first ten steps it is the plain mean, so the initial values have no part in it. It works element by
    element, so a stack of folds keeps the average of each fold.

    Attributes:
        tensors: the averages, in the order of what is trained.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.tensors = [tensor.clone() for tensor in tensors]

    def update(self, tensors: Sequence[torch.Tensor], step: int) -> None:
        """Take in the values of `tensors` after step number `step`, from 1."""
        decay = 1 - 1 / min(step, max(FEWEST, WINDOW * step))
        get_ema_multi_avg_fn(decay)(self.tensors, [*tensors], step)  # type: ignore[no-untyped-call]  # torch leaves it untyped
