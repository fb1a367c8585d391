"""Dropout with a mask that is cheap on a CPU: PyTorch draws a random number per element, this one per four elements."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout` with masks from 16 random bits per element on a CPU, so `p` is rounded to 1 / 65,536.

    Inputs elsewhere (a GPU, the meta device) go the ordinary way. Outputs are scaled by the inverse of the rounded
    probability, so their mean is the input's.
    """

    on_gpu: ClassVar[bool] = False
    """Whether tensors on the CPU stand for a GPU's for now."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape as `x`."""
        dropped = round(self.p * LEVELS)
        if not self.training or not 0 < dropped < LEVELS or x.device.type != "cpu" or self.on_gpu:
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        return x * (bits >= dropped - LEVELS // 2) * (LEVELS / (LEVELS - dropped))


@contextmanager
def fused_dropout() -> Iterator[None]:
    """Make dropout behave as on a GPU, which keeps a mask of one byte per element; a CPU keeps one of the input's type.

    This includes a checkpointed layer's second pass, which runs in the backward pass, where PyTorch's function modes
    are off.
    """
    plain, before = nn.functional.dropout, Dropout.on_gpu

    def dropout(
        input: torch.Tensor,  # noqa: A002  # PyTorch's name, by which it may be given
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> torch.Tensor:
        if training and not inplace and 0 < p < 1:
            return torch.native_dropout(input, p, True)[0]
        return plain(input, p, training, inplace)

    nn.functional.dropout, Dropout.on_gpu = dropout, True
    try:
        yield
    finally:
        nn.functional.dropout, Dropout.on_gpu = plain, before
