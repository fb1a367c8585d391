"""The first values of A and B: random, or parts of the weight beside them, or of what quantization removed from it.

PiSSA and OLoRA start from a product B0 A0 that is not zero, and subtract it from the base model's weight. Here all
trials share that weight, so it stays, and the product is subtracted from what A and B add:

    y = W x + scale · (B A - B0 A0) x = W x + scale · [B, -B0] [A; A0] x

A0 and B0 are kept, frozen. Everything that reads or writes such a model sees a LoRA of twice the rank, which it is.

LoftQ subtracts nothing: what it adds to the quantized weight should be there, and the weight stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.functional import linear

from autopeft_lora.method import LOFTQ, ORTHOGONAL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ADAPTER = "default"
"""peft's name for a model's only add-on."""

Pair = tuple[torch.Tensor, torch.Tensor]
"""A `[rank, in]` and B `[out, rank]`."""


class Beside(nn.Module):
    """A matrix to train and a frozen one of the same shape beside it."""

    of_inputs = True
    """Whether both get the same inputs, and the outputs are joined, as for A; for B the inputs are split instead."""

    def __init__(self, weight: torch.Tensor, frozen: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.register_buffer("frozen", frozen, persistent=False)

    @property
    def whole(self) -> torch.Tensor:
        """Both as one matrix, A's rows or B's columns behind the frozen one's."""
        return torch.cat([self.weight, self.get_buffer("frozen")], dim=0 if self.of_inputs else 1)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Save one matrix, as a plain linear map of twice the rank would."""
        destination[f"{prefix}weight"] = self.whole if keep_vars else self.whole.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[…, in]` → `[…, out]`."""
        return self._joined(x, lambda given: linear(given, self.weight))

    def forward_packed(self, x: torch.Tensor, folds: int) -> torch.Tensor:
        """The same with a trained matrix for each of the folds, whose rows follow one another."""

        def trained(given: torch.Tensor) -> torch.Tensor:
            found = torch.bmm(given.reshape(folds, -1, given.shape[-1]), self.weight.mT)
            return found.reshape(*given.shape[:-1], -1)

        return self._joined(x, trained)

    def _joined(self, x: torch.Tensor, trained: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        frozen = self.get_buffer("frozen")
        if self.of_inputs:
            return torch.cat([trained(x), linear(x, frozen)], dim=-1)
        mine, other = x.chunk(2, dim=-1)
        return trained(mine) + linear(other, frozen)


class BesideB(Beside):
    """B and -B0: each gets its half of the inputs, and the outputs are added."""

    of_inputs = False


def drawn(a: torch.Tensor, b: torch.Tensor) -> Pair:
    """Orthogonal: neither is zero, but B A is, since A's part has even rows of a rotation and B's has odd ones.

    As in peft. Peft refuses an odd rank; here its last pair keeps its values.
    """
    rank = len(a) - len(a) % 2
    rotation, _ = torch.linalg.qr(torch.randn(rank, rank, device=a.device))
    for_a, for_b = (torch.randn(rank // 2, size, device=a.device) for size in (a.shape[1], len(b)))
    a[:rank], b[:, :rank] = rotation[0::2].T @ for_a / 10, for_b.T @ rotation[1::2] / 10
    return a, b


def principal(weight: torch.Tensor, rank: int, scale: float, rounds: int | None = None) -> Pair:
    """PiSSA: B A scaled is the part with the largest singular values (Meng et al. 2024, arXiv:2404.02948).

    Args:
        weight: `[out, in]`.
        rank: how many singular values, at most.
        scale: of the product.
        rounds: of the subspace iteration of Halko et al., which replaces the full decomposition; None: the full one.
    """
    if rounds is None:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank]
    else:
        left, values, turned = torch.svd_lowrank(weight, min(rank, *weight.shape), niter=rounds)
        right = turned.mT
    root = (values / scale).sqrt()
    return root[:, None] * right, left * root


def orthonormal(weight: torch.Tensor, rank: int) -> Pair:
    """OLoRA: the first columns of Q and rows of R (Büyükakyüz 2024, arXiv:2406.01775)."""
    q, r = torch.linalg.qr(weight)
    return r[:rank], q[:, :rank]


def plain_weight(module: nn.Module) -> torch.Tensor:
    """`[out, in]` in float32, of a linear map, of GPT-2's transposed one, or of a quantized one as it computes."""
    from peft.utils.integrations import dequantize_module_weight
    from transformers.pytorch_utils import Conv1D

    weight: torch.Tensor = dequantize_module_weight(module).detach().float()
    return weight.T if isinstance(module, Conv1D) else weight


def make_up(layer: Any, a: torch.Tensor, b: torch.Tensor) -> None:
    """LoftQ: B A scaled is the best approximation of what quantization removed (Li et al. 2023, arXiv:2310.08659).

    This is one round of its algorithm 1, which does not change the quantized weight; peft's
    `replace_lora_weights_loftq` does the same if the scale is 1. Pairs beyond the weight's own rank add nothing.
    """
    from autopeft import original_weight

    base = layer.get_base_layer()
    now = plain_weight(base)
    top, left = principal(original_weight(base).to(now.device) - now, len(a), layer.scaling[ADAPTER])
    a[: len(top)], b[:, : len(top)] = top, left
    if ADAPTER in layer.lora_magnitude_vector:  # DoRA's lengths are the lengths of the sum
        layer.lora_magnitude_vector[ADAPTER].weight.copy_((now + layer.scaling[ADAPTER] * b @ a).norm(dim=1))


@torch.no_grad()
def start(layers: Iterable[Any], how: str, rank: int) -> None:
    """Give the pair of each of peft's LoRA layers its first values, if they are not peft's own.

    Args:
        layers: peft's layers, of twice the rank if their product is subtracted.
        how: `ORTHOGONAL`, `LOFTQ`, or one of those whose product is subtracted.
        rank: to train.
    """
    for layer in layers:
        a, b = (part[ADAPTER].weight for part in (layer.lora_A, layer.lora_B))
        if how in (ORTHOGONAL, LOFTQ):
            if a.is_meta:
                continue
            if how == ORTHOGONAL:
                drawn(a, b)
            else:
                make_up(layer, a, b)
            continue
        a, b = a[:rank].clone(), b[:, :rank].clone()  # pairs beyond the weight's own rank keep peft's values
        frozen = torch.zeros_like(a), torch.zeros_like(b)
        if not a.is_meta:
            for place, kept, part in zip((a, b.mT), (frozen[0], frozen[1].mT), _taken(layer, how, rank), strict=True):
                place[: len(part)] = part
                kept[: len(part)] = part
        layer.lora_A[ADAPTER], layer.lora_B[ADAPTER] = Beside(a, frozen[0]), BesideB(b, -frozen[1])


def _taken(layer: Any, how: str, rank: int) -> Pair:
    """A0 and the transpose of B0, both with at most `rank` rows."""
    weight, scale = plain_weight(layer.get_base_layer()), layer.scaling[ADAPTER]
    if how == "olora":
        a, b = orthonormal(weight, rank)
    else:
        rounds = int(how.rpartition("_")[2]) if "_niter_" in how else None
        a, b = principal(weight, rank, scale, rounds)
    return a, b.mT


def as_plain(model: nn.Module) -> None:
    """Replace each pair by a plain linear map of twice the rank, as peft's own merging needs."""
    for module in list(model.modules()):
        if isinstance(module, nn.ModuleDict) and isinstance(part := module._modules.get(ADAPTER), Beside):
            whole = part.whole.detach()
            plain = nn.Linear(whole.shape[1], whole.shape[0], bias=False, device="meta")
            plain.weight = nn.Parameter(whole, requires_grad=False)
            module[ADAPTER] = plain
