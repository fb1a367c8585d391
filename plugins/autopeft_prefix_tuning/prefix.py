"""The prefix's modules, and the attention function that lets a frozen attention module see one.

transformers gives every attention module the function that its config names. The function here puts the module's
prefix, if it has one, in front of the keys and values and then calls PyTorch's own attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

if TYPE_CHECKING:
    from autopeft_prefix_tuning.places import Attention

ATTENTION = "autopeft_prefix"
"""The name of this attention in the config of a model with prefixes."""

CHILD = "prefix"
"""The name of the prefix inside its attention module."""


class Prefix(nn.Module):
    """Keys and values that are trained directly: `[2, heads, tokens, head_dim]`."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = nn.Parameter(states)

    @classmethod
    def drawn(cls, tokens: int, place: Attention, device: torch.device) -> Prefix:
        """A prefix for that attention module, drawn from N(0, 1)."""
        return cls(torch.randn(2, place.heads, tokens, place.head_dim, device=device))

    def forward(self) -> torch.Tensor:
        """Keys and values, `[1, 2, heads, tokens, head_dim]`; the first dimension makes them a batch of one."""
        return self.states[None]


class Network(nn.Module):
    """The part that all projected prefixes share: an embedding of each virtual token and a layer `width` wide.

    Li & Liang 2021, section 4.3: `P[i] = MLP(P'[i])`. The MLP's last layer has an independent part for each attention
    module, so each part is in its own `ProjectedPrefix`.
    """

    def __init__(self, tokens: int, width: int, place: Attention, device: torch.device) -> None:
        super().__init__()
        key_width = place.heads * place.head_dim
        self.embedding = nn.Parameter(torch.randn(tokens, key_width, device=device))
        self.hidden = nn.Linear(key_width, width, device=device)

    def forward(self) -> torch.Tensor:
        """`[1, tokens, width]`."""
        return torch.tanh(self.hidden(self.embedding))[None]


class ProjectedPrefix(nn.Module):
    """Keys and values that a trained network produces.

    Args:
        network: the part of the network that all prefixes of the model share.
        place: the attention module that the prefix is for.
        device: of its tensors.
    """

    def __init__(self, network: Network, place: Attention, device: torch.device) -> None:
        super().__init__()
        self.network = network
        self.output = nn.Linear(network.hidden.out_features, 2 * place.heads * place.head_dim, device=device)
        self._shape = (2, place.heads, place.head_dim)

    def forward(self) -> torch.Tensor:
        """The same as from `Prefix`."""
        states: torch.Tensor = self.output(self.network())
        return states.view(*states.shape[:2], *self._shape).permute(0, 2, 3, 1, 4)


def prefixes(model: nn.Module) -> dict[str, Prefix | ProjectedPrefix]:
    """The prefixes of a model by name, in its order."""
    return {name: one for name, one in model.named_modules() if isinstance(one, Prefix | ProjectedPrefix)}


def use_prefixes(model: nn.Module) -> None:
    """Let the attention modules of a transformers model see their prefixes; modules without one attend as before."""
    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    cast("Any", model).set_attn_implementation(ATTENTION)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over the prefix, which every query sees as a whole, and the input, which it sees as the mask allows.

    Args:
        module: the attention module.
        query: `[rows, heads, queries, head_dim]`.
        key: `[rows, key-value heads, keys, head_dim]`.
        value: like `key`.
        attention_mask: broadcast to `[rows, heads, queries, keys]`: boolean, true where a query sees a key, or numbers
            to add to the scores. With None a query sees everything or, if the module is causal, everything before it.
        options: further arguments of `sdpa_attention_forward`.

    Returns:
        `[rows, queries, heads, head_dim]`, and no attention weights.
    """
    prefix = getattr(module, CHILD, None)
    if isinstance(prefix, nn.Module):  # also one that stands for the prefixes of several winners
        if attention_mask is None and query.shape[2] > 1 and _is_causal(module, options):
            attention_mask = query.new_ones(query.shape[2], key.shape[2], dtype=torch.bool).tril()[None, None]
        states = prefix()
        tokens = states.shape[3]
        key, value = (_before(states[:, index], own) for index, own in enumerate((key, value)))
        if attention_mask is not None:
            if attention_mask.stride(2) == 0:  # every query has the same row: one is enough
                attention_mask = attention_mask[:, :, :1]
            seen = True if attention_mask.dtype == torch.bool else 0.0
            attention_mask = pad(attention_mask, (tokens, 0), value=seen)
        if options.get("position_bias") is not None:
            options["position_bias"] = pad(options["position_bias"], (tokens, 0))
    attended: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    return attended


def _is_causal(module: nn.Module, options: dict[str, Any]) -> bool:
    """Whether, without a mask, no query sees what comes later; decided as in `sdpa_attention_forward`."""
    given = options.get("is_causal")
    return bool(getattr(module, "is_causal", True) if given is None else given)


def _before(prefix: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Every row's own keys or values behind the prefix's.

    Args:
        prefix: `[groups, heads, tokens, head_dim]`: one for as many rows each, in their order.
        own: `[rows, heads, keys, head_dim]`.
    """
    rows = len(own) // len(prefix)
    of_rows = prefix.to(own.dtype)[:, None].expand(-1, rows, -1, -1, -1).flatten(0, 1)
    return torch.cat((of_rows, own), dim=2)
