"""Equal weights of several models, kept in memory once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

SAMPLE = 32
"""Numbers at the start and the end of a tensor that find others that may be equal."""


class SharedWeights:
    """Points equal parameters and buffers of the models that it gets at one tensor, which nothing may change then."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], list[torch.Tensor]] = {}

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Replace each parameter of a model that equals one seen before, and remember the others."""
        for parameter in model.parameters():
            parameter.data = self._first(parameter.data)
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = self._first(buffer)

    def _first(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor equal to this one that came first."""
        known = self._known.setdefault(_key(tensor), [])
        same = next((one for one in known if one.data_ptr() == tensor.data_ptr() or torch.equal(one, tensor)), None)
        if same is None:
            known.append(tensor)
            return tensor
        return same


def _key(tensor: torch.Tensor) -> tuple[object, ...]:
    """What equal tensors have in common, and few others."""
    flat = tensor.flatten()
    ends = torch.cat([flat[:SAMPLE], flat[-SAMPLE:]])
    return tensor.shape, tensor.dtype, tensor.device, ends.cpu().view(torch.uint8).numpy().tobytes()
