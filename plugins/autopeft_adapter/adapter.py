"""The adapter's modules: a bottleneck, and the two ways to join one to a frozen sublayer."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

NON_LINEARITIES: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Bottleneck(nn.Module):
    """`up(f(down(x)))`, `[…, width]` → `[…, width]`, zero until trained.

    With zero up-projections the first step's output is the base model's own. Houlsby et al. 2019, section 2.1, start
    near the identity.

    Args:
        width: of the residual stream.
        size: of the bottleneck.
        non_linearity: a key of `NON_LINEARITIES`.
        like: a tensor on the device to use.
    """

    def __init__(self, width: int, size: int, non_linearity: str, like: torch.Tensor) -> None:
        super().__init__()
        self.down = nn.Linear(width, size, device=like.device)
        self.non_linearity = NON_LINEARITIES[non_linearity]()
        self.up = nn.Linear(size, width, device=like.device)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What to add to the sublayer's output."""
        projected: torch.Tensor = self.up(self.non_linearity(self.down(x)))
        return projected


class Wrapped(nn.Module):
    """Replaces a frozen linear map; some models read its `weight`."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, also of a base that is wrapped itself."""
        return cast("torch.Tensor", self.base.weight)


class SequentialAdapter(Wrapped):
    """A sublayer's output projection followed by an adapter: `h + adapter(h)` with `h = base(x)`."""

    def __init__(self, base: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(base)
        self.adapter = adapter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[…, in_features]` → `[…, width]`."""
        h = self.base(x)
        output: torch.Tensor = h + self.adapter(h)
        return output


class Tap(Wrapped):
    """A sublayer's first projection; keeps its input until the sublayer's last one takes it."""

    _input: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[…, width]` → `[…, out_features]`, as without the tap."""
        self._input = x
        projected: torch.Tensor = self.base(x)
        return projected

    def take(self) -> torch.Tensor:
        """The input of the current pass; it is then dropped, so that nothing keeps its graph."""
        x, self._input = self._input, None
        if x is None:
            raise RuntimeError("a parallel adapter's sublayer must run its first projection before its last.")
        return x


class ParallelAdapter(Wrapped):
    """A sublayer's output projection plus an adapter of the sublayer's input (He et al. 2022, section 3.2).

    Their scale s stays 1: the up-projection starts at zero and learns its own scale.
    """

    def __init__(self, base: nn.Module, adapter: Bottleneck, tap: Tap) -> None:
        super().__init__(base)
        self.adapter = adapter
        self._tap = (tap,)  # in a tuple, so that the tap does not become a child of this module too

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[…, in_features]` → `[…, width]`."""
        output: torch.Tensor = self.base(x) + self.adapter(self._tap[0].take())
        return output
