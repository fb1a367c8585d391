"""Dropout at a rate of its own for every slice of a pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class SliceDropout(nn.Module):
    """`nn.Dropout` for rows that come slice by slice, each slice with its own rate.

    Attributes:
        rates: float32 `[slices]`; inside a pass that is mapped over slices, one number.
        common: the rate of all slices, if there is one: PyTorch's own dropout costs less.
    """

    rates: torch.Tensor
    common: float | None

    def __init__(self, rates: Sequence[float], device: torch.device | str) -> None:
        super().__init__()
        self.set(rates, device)

    def set(self, rates: Sequence[float], device: torch.device | str) -> None:
        """Give every slice its rate, each at least 0 and below 1."""
        self.register_buffer("rates", torch.tensor(rates, device=device), persistent=False)
        self.common = rates[0] if len({*rates}) == 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[slices · n, …]`, the same shape; of one slice inside a mapped pass."""
        if not self.training:
            return x
        if self.common is not None:
            return nn.functional.dropout(x, self.common)
        rates = self.rates
        if rates.ndim:
            rates = rates.repeat_interleave(len(x) // len(rates)).view(-1, *[1] * (x.ndim - 1))
        kept = torch.rand(x.shape, device=x.device) >= rates
        return torch.where(kept, x / (1 - rates), 0.0).to(x.dtype)  # divided in float32, as `nn.Dropout` does
