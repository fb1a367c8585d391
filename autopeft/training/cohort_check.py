"""Whether candidates may train in one pass: each one's gradients must be those it has alone, and padding has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.training.packing_check import alike

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from autopeft.training.batch import Batch
    from autopeft.training.cohort import Cohort
    from autopeft.training.cohort_member import Member

SPREAD = 0.02
"""Standard deviation of what is added to the values: methods start at zero, where most gradients vanish."""


@torch.no_grad()
def agrees(
    cohort: Cohort,
    checked: Sequence[Member],
    gradients: Callable[[nn.Module, Batch], Mapping[str, torch.Tensor]],
    batch: Callable[[int], Batch],
    precision: torch.dtype,
) -> bool:
    """Whether the `checked` members of a cohort have the gradients that they have alone; their values stay.

    Args:
        cohort: with them as members.
        checked: members whose values are finite.
        gradients: returns those of a model's trained tensors for a batch, with nothing left over from before.
        batch: makes a batch of the same few rows of each fold for so many candidates.
        precision: of the products.
    """
    own = [[tensor.clone() for tensor in member.learner.tensors] for member in checked]
    generator = torch.Generator().manual_seed(0)
    try:
        for member in checked:
            for tensor in member.learner.tensors:
                tensor += SPREAD * torch.randn(tensor.shape, generator=generator).to(tensor.device)
        with torch.enable_grad():
            together = cohort.gradients(gradients, batch(len(cohort.members)))
            expected = [gradients(member.learner.model, batch(1)) for member in checked]
        return all(
            _same(cohort, member, together, alone, precision) for member, alone in zip(checked, expected, strict=True)
        )
    finally:
        for member, kept in zip(checked, own, strict=True):
            for tensor, value in zip(member.learner.tensors, kept, strict=True):
                tensor.copy_(value)


def _same(
    cohort: Cohort,
    member: Member,
    together: Sequence[torch.Tensor],
    alone: Mapping[str, torch.Tensor],
    precision: torch.dtype,
) -> bool:
    """Whether a member's part of the stacks' gradients is its own, and its padding has none."""
    if alone.keys() != {*cohort.names}:
        return False
    folds, number = member.shapes[0][0], cohort.members.index(member)
    found = {}
    for name, gradient, (_, *sizes) in zip(cohort.names, together, member.shapes, strict=True):
        slices = gradient[number * folds : (number + 1) * folds]
        corner = slices[(slice(None), *(slice(0, size) for size in sizes))]
        if slices.count_nonzero() != corner.count_nonzero():
            return False
        found[name] = corner
    return all(
        alike({name: gradient[fold] for name, gradient in alone.items()}, found, fold, precision)
        for fold in range(folds)
    )
