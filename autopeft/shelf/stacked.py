"""Linear maps and normalisations with tensors of its own for every model, run on the rows of all models at once.

Matrices of different shapes are padded with zeros to one shape. A LoRA or a bottleneck stays the same by that: what is
added to the states between its two maps is multiplied by zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.shelf.routing import Members, Routing


class Stacked(nn.Module):
    """A module with a tensor `[models, …]` where the models' tensors differ, and the one of all where they are equal.

    Args:
        routing: of the pass.
        members: the models, in their order.
        modules: theirs, of one class; afterwards their tensors are slices of the stacks.
    """

    def __init__(self, routing: Routing, members: Members, modules: Sequence[Any]) -> None:
        super().__init__()
        self._routing, self._members = routing, members
        self.weight: Any
        self.bias: Any
        self.weight, self._own_weight = stack([module.weight for module in modules])
        self.bias, self._own_bias = stack([module.bias for module in modules])

    def _of_rows(self, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Vectors `[models, width]` as those of the rows, in a shape that broadcasts over `[rows, …, width]`."""
        found = values[self._routing.places(self._members, values.device)]
        return found.reshape(len(x), *[1] * (x.ndim - 2), -1)


class StackedLinear(Stacked):
    """`nn.Linear`: `[rows, …, in]` → `[rows, …, out]`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each row by its model's map."""
        bias = self.bias
        if not self._own_weight:
            given = functional.linear(x, self.weight, None if self._own_bias else bias)
            return given + self._of_rows(bias, x) if self._own_bias and bias is not None else given
        given = products(x, self.weight, self._routing.pieces(self._members))
        if bias is None:
            return given
        return given + (self._of_rows(bias, x) if self._own_bias else bias)


def products(x: torch.Tensor, matrices: torch.Tensor, pieces: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Rows `[rows, …, in]` times the matrices `[models, out, in]` of their models.

    Args:
        x: the rows, model by model.
        matrices: of all models.
        pieces: the place of each model that has rows, and how many.
    """
    if len(pieces) == 1:
        return functional.linear(x, matrices[pieces[0][0]])
    rows = pieces[0][1]
    if all(count == rows for _, count in pieces):
        own = matrices if len(pieces) == len(matrices) else matrices[[place for place, _ in pieces]]
        return torch.bmm(x.reshape(len(pieces), -1, x.shape[-1]), own.mT).reshape(*x.shape[:-1], -1)
    parts = torch.split(x, [count for _, count in pieces])
    return torch.cat([functional.linear(part, matrices[at]) for part, (at, _) in zip(parts, pieces, strict=True)])


class StackedLayerNorm(Stacked):
    """`nn.LayerNorm` over the last dimension."""

    def __init__(self, routing: Routing, members: Members, modules: Sequence[Any]) -> None:
        super().__init__(routing, members, modules)
        (self._width,), self._eps = modules[0].normalized_shape, modules[0].eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Each row with its model's weight and bias."""
        found = functional.layer_norm(x, (self._width,), None, None, self._eps)
        if self.weight is not None:
            found = found * (self._of_rows(self.weight, x) if self._own_weight else self.weight)
        if self.bias is not None:
            found = found + (self._of_rows(self.bias, x) if self._own_bias else self.bias)
        return found


STACKED: dict[type[nn.Module], type[Stacked]] = {nn.Linear: StackedLinear, nn.LayerNorm: StackedLayerNorm}
"""What runs the modules of several models at once, by their class."""


def stack(each: Sequence[nn.Parameter | None]) -> tuple[torch.Tensor | None, bool]:
    """The models' tensors as one, and whether it is a stack; None where they have none."""
    first = each[0]
    if first is None or all(other is not None and other.data_ptr() == first.data_ptr() for other in each):
        return (None if first is None else first.data), False
    given = [tensor for tensor in each if tensor is not None]
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in given), strict=True)]
    stack = first.data.new_zeros(len(given), *shape)
    for place, tensor in zip(stack, given, strict=True):
        own = place[tuple(slice(size) for size in tensor.shape)]
        own.copy_(tensor.data)
        tensor.data = own
    return stack, True
