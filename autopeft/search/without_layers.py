"""A trained model without the add-ons of its lowest layers, which then compute what they compute in the base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.common.exceptions import AutopeftError, in_a_line
from autopeft.common.units import counted
from autopeft.models.attach import attach
from autopeft.training.trunk_cache import lowest_trained

if TYPE_CHECKING:
    from torch import nn

    from autopeft.methods.candidate import Candidate
    from autopeft.models.base import BaseModel


class CannotDropError(AutopeftError):
    """A method cannot leave low layers alone; in words that follow its name."""


def without_layers(base: BaseModel, candidate: Candidate, model: nn.Module, count: int) -> nn.Module:
    """A copy of a candidate's trained model whose lowest `count` layers have no add-on, in evaluation mode.

    The method builds the add-on again on a model that has no linear maps in these layers. So any method can that looks
    for its places among the linear maps; whether it did is checked. `model` itself is not changed.

    Raises:
        CannotDropError: the method does otherwise, or has nothing left to put on the layers above.
    """
    found = built(base, candidate, count).to(next(model.parameters()).device).eval()
    learnt = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    shared = {id(parameter) for parameter in base.module.parameters()}
    own = [(name, one) for name, one in found.named_parameters() if id(one) not in shared]
    for name, parameter in own:
        if name not in learnt or learnt[name].shape != parameter.shape:
            raise CannotDropError(f"makes {name} anew if it leaves {counted(count, 'layer')} alone")
    with torch.no_grad():
        for name, tensor in (*own, *found.named_buffers()):
            if name in learnt and learnt[name].shape == tensor.shape:
                tensor.data.copy_(learnt[name])
    return found


def built(base: BaseModel, candidate: Candidate, count: int, *, meta: bool = False) -> nn.Module:
    """A candidate's model as it is before training, with nothing on the lowest `count` layers.

    Raises:
        CannotDropError: as `without_layers`.
    """
    bare = base.bare_below(count)
    try:
        found = attach(bare, candidate.method, candidate.params, meta=meta)
    except Exception as error:  # in a plugin
        raise CannotDropError(f"cannot leave {counted(count, 'layer')} alone: {in_a_line(error)}") from error
    if lowest_trained(found, base.spec) < count:
        raise CannotDropError(f"changes more than the layers above the lowest {count}")
    return found
