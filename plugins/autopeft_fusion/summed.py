"""Frozen adapters behind one frozen linear map, whose outputs are averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft_fusion.fused import SourceAdapter


class Summed(nn.Module):
    """A frozen map followed by frozen adapters: `h + Σ_n z_n / count`, with `h = base(x)` and `z_n` of each adapter.

    Args:
        base: the frozen map.
        adapters: the frozen adapters.
        count: what their sum is divided by: the number of all sources, of which some have no adapter here.
    """

    def __init__(self, base: nn.Module, adapters: Sequence[SourceAdapter], count: int) -> None:
        super().__init__()
        self.base = base
        self.sources = nn.ModuleList(adapters)
        self._count = count

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, which some models read, also of a base that is wrapped itself."""
        return cast("torch.Tensor", self.base.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[…, in_features]` → `[…, width]`."""
        h: torch.Tensor = self.base(x)
        added = [adapter(h) for adapter in self.sources]
        return h + torch.stack(added).sum(dim=0) / self._count
