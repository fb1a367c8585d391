"""How a model runs: for training, with or without checkpointed layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopeft.models.marks import FROZEN, LAYER

if TYPE_CHECKING:
    from collections.abc import Callable


def train_mode(model: nn.Module) -> None:
    """Set training mode, but in the frozen base only for `nn.Dropout` modules: dropout by functions stays off.

    In most model types modules drop hidden states, which regularises what is trained above them, and a function drops
    attention probabilities, which costs a CPU far more time than it is worth (`benchmarks/cpu_step.py` measures the
    step with and without). OPT drops hidden states by a function too, so that is off; DeBERTa's attention uses a
    module, so that stays.
    """
    model.train()
    for module in model.modules():
        if hasattr(module, FROZEN):
            module.training = isinstance(module, nn.Dropout)


def checkpoint_layers(model: nn.Module) -> None:
    """Keep only the inputs of the transformer layers for the backward pass, which then computes the rest again.

    Chen et al. 2016, arXiv:1604.06174. A layer that changes something outside itself when it runs, such as a growing
    cache of keys and values, cannot run twice: PyTorch notices this in the backward pass and raises an error.
    """
    from torch.utils.checkpoint import checkpoint

    def recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        return run

    for module in model.modules():
        if hasattr(module, LAYER):
            module.forward = recomputing(module.forward)


def as_kept(model: nn.Module) -> torch.autocast:
    """Compute products in the precision of the model's weights, if some are below float32."""
    lowered = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    place = next(model.parameters()).device.type
    return torch.autocast(place, dtype=lowered or torch.bfloat16, enabled=lowered is not None)
