"""The mean of what folds learnt, tensor by tensor: for add-ons that compute the mean if their tensors are the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def mean_of(folds: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Each tensor's mean over the folds, by its name.

    If the output is linear in the tensors, as with a bias or a vector of factors, that is the mean of what the add-ons
    do. With a product, as in LoRA, it is not. With a network, as in an adapter, it is about that, if the folds learnt
    similar values.

    Args:
        folds: what each fold learnt, all with the same names and shapes.
    """
    import torch

    return {name: torch.stack([fold[name] for fold in folds]).mean(dim=0) for name in folds[0]}
