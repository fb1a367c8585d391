"""One pair of A and B instead of those of several folds: the mean of the factors is not the mean of the products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft import mean_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

A, B = ".lora_A.", ".lora_B."


def mean_of_products(folds: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """For each pair the best approximation of mean(B A) with its rank (Eckart & Young 1936), else the plain mean."""
    found = mean_of(folds)
    for name in [name for name in found if A in name]:
        other = name.replace(A, B)
        down, up = _nearest([fold[name] for fold in folds], [fold[other] for fold in folds])
        found[name], found[other] = down.to(found[name].dtype), up.to(found[other].dtype)
    return found


def _nearest(downs: Sequence[Tensor], ups: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """A `[rank, in]` and B `[out, rank]` whose product is nearest to the mean of the pairs' products.

    Stacked, the pairs are one pair of a larger rank, whose product is the sum. Once both sides are orthogonal, its
    singular values are those of a small matrix, so no matrix of the weight's size is made.
    """
    rank = len(downs[0])
    left, upper = torch.linalg.qr(torch.cat([up.double() for up in ups], dim=1) / len(ups))
    right, lower = torch.linalg.qr(torch.cat([down.double() for down in downs]).T)
    u, sizes, v = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    root = sizes[:rank].sqrt()
    down, up = root[:, None] * (v[:rank] @ right.T), left @ u[:, :rank] * root
    missing = rank - len(root)  # a map narrower than the rank has fewer
    return torch.nn.functional.pad(down, (0, 0, 0, missing)), torch.nn.functional.pad(up, (0, missing))
