"""The mean of what folds learnt, tensor by tensor: for methods whose add-on computes the mean where its tensors are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def mean_of(folds: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Each tensor's mean over the folds, by its name.

    Of a sum, as a bias or a vector of factors is in its layer, that is the mean of what the add-on does. Of a product,
    as LoRA's, it is not; of a network, as an adapter, about so for folds that came to similar values.

    Args:
        folds: what each learnt, all of the same names and shapes.
    """
    import torch

    return {name: torch.stack([fold[name] for fold in folds]).mean(dim=0) for name in folds[0]}
