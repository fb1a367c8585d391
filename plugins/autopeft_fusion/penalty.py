"""The penalty that keeps the values of a fusion close to the adapters' own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft import TrainingCallback
from autopeft_fusion.fused import fusions

if TYPE_CHECKING:
    from torch import nn

STRENGTH = 0.01
"""Its factor, from AdapterHub's `BaseAdapterFusionConfig`."""


class ValuePenalty(TrainingCallback):
    """Adds `0.01 · Σ ‖W_v - I‖²`, over the fusions of a model, to the loss of each batch."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def loss(self) -> torch.Tensor | None:
        """The penalty; None if no fusion has values of its own."""
        parts = [
            (fusion.value.weight - torch.eye(len(fusion.value.weight), device=fusion.value.weight.device))
            .square()
            .sum()
            for fusion in fusions(self._model).values()
            if fusion.value is not None
        ]
        return STRENGTH * torch.stack(parts).sum() if parts else None
