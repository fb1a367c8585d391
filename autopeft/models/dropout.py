"""Dropout whose mask costs a CPU little: PyTorch draws one random number an element there, this one for every four."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

LEVELS = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout` with masks cut from 16 random bits an element on a CPU, so `p` is rounded to 1 / 65,536.

    Inputs elsewhere (a GPU, the meta device) go the ordinary way. Outputs are scaled by the rounded probability's
    own inverse, so their mean is the input's.
    """

    on_gpu: ClassVar[bool] = False
    """Whether tensors that stand for a GPU's are on the CPU meanwhile."""

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
    """Have dropout as a GPU has it, which keeps a mask of a byte an element; a CPU keeps one of the input's type.

    In a layer's second pass too, which runs in the backward pass, where no function mode of PyTorch's is on.
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
