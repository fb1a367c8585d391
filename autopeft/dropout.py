"""Dropout whose mask costs a CPU little: PyTorch draws one random number an element there, this one for every four."""

from __future__ import annotations

import torch
from torch import nn

LEVELS = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout` with masks cut from 16 random bits an element on a CPU, so `p` is rounded to 1 / 65,536.

    Inputs elsewhere (a GPU, the meta device) go the ordinary way. Outputs are scaled by the rounded probability's
    own inverse, so their mean is the input's.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape as `x`."""
        dropped = round(self.p * LEVELS)
        if not self.training or not 0 < dropped < LEVELS or x.device.type != "cpu":
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        return x * (bits >= dropped - LEVELS // 2) * (LEVELS / (LEVELS - dropped))
