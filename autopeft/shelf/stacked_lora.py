"""peft's plain LoRA of several models on one linear map: `W x + s · B A x`, with the A, B and s of each row's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from autopeft.shelf.stacked import products, stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.shelf.routing import Members, Routing


class StackedLora(nn.Module):
    """Replaces peft's layers, whose forward pass does more in Python than in products.

    Args:
        routing: of the pass.
        members: the models, in their order.
        layers: theirs, for each of which `is_plain_lora` holds.
        base: the linear map, of all models or joined.
    """

    def __init__(self, routing: Routing, members: Members, layers: Sequence[Any], base: nn.Module) -> None:
        super().__init__()
        self._routing, self._members, self.base = routing, members, base
        pairs = [_pair(layer) for layer in layers]
        self._down, self._up = (stack(list(each)) for each in zip(*pairs, strict=True))

    @property
    def weight(self) -> Any:
        """The weight of the base model's map, which some models read."""
        return self.base.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[rows, …, in]` → `[rows, …, out]`."""
        given: torch.Tensor = self.base(x)
        added = self._times(self._times(x, self._down), self._up)
        return given + added.to(given.dtype)

    def _times(self, x: torch.Tensor, kept: tuple[Any, bool]) -> torch.Tensor:
        """Rows times their model's matrix, or the one of all."""
        matrices, own = kept
        x = x.to(matrices.dtype)
        return products(x, matrices, self._routing.pieces(self._members)) if own else functional.linear(x, matrices)


def is_plain_lora(module: Any) -> bool:
    """Whether a module is peft's LoRA on a linear map as in the paper: A, B and a scale, and nothing else."""
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or len(module.active_adapters) != 1 or module.disable_adapters or module.merged:
        return False
    (name,) = module.active_adapters
    pair = [part._modules.get(name) for part in (module.lora_A, module.lora_B)]
    return name not in module.lora_variant and all(type(one) is nn.Linear and one.bias is None for one in pair)


def _pair(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A `[rank, in]`, and B `[out, rank]` with the scale in it."""
    (name,) = layer.active_adapters
    return layer.lora_A[name].weight, nn.Parameter(layer.lora_B[name].weight.data * layer.scaling[name])
