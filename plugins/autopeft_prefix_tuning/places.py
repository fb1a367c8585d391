"""Where in a model prefixes go: its attention modules, with the heads of their keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopeft import ModelSpec


@dataclass(frozen=True)
class Attention:
    """One attention module.

    Attributes:
        name: dotted, in the model.
        layer: index into `ModelSpec.layers`.
        heads: of its keys and values.
        head_dim: width of a head.
    """

    name: str
    layer: int
    heads: int
    head_dim: int


def attentions(spec: ModelSpec) -> tuple[Attention, ...]:
    """Every attention module of the transformer layers, in the model's order.

    They are found by the linear map that makes their values, alone or together with queries and keys. A module is left
    out if its heads do not share the map's width equally, because then their sizes are not known.
    """
    found = []
    for linear in spec.linears:
        queries, heads = spec.heads_of(linear.layer)
        shares = {"value": heads, "qkv": queries + 2 * heads}.get(linear.role)
        if shares and linear.out_features % shares == 0:
            module = linear.name.rpartition(".")[0]
            found.append(Attention(module, linear.layer, heads, linear.out_features // shares))
    return tuple(found)
