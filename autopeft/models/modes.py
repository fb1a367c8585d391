"""How a model runs: for training, with or without its layers checkpointed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopeft.models.marks import FROZEN, LAYER

if TYPE_CHECKING:
    from collections.abc import Callable


def train_mode(model: nn.Module) -> None:
    """Training mode, but of the frozen base only its `nn.Dropout` modules: without dropout by functions.

    In most model types the modules drop hidden states, which regularises what is trained above them, and a function
    attention probabilities, which costs a CPU far more time than it is worth (`benchmarks/cpu_step.py` measures the
    step with and without). OPT's dropout of hidden states is a function's too and so off; that of DeBERTa's attention
    is a module and stays.
    """
    model.train()
    for module in model.modules():
        if hasattr(module, FROZEN):
            module.training = isinstance(module, nn.Dropout)


def checkpoint_layers(model: nn.Module) -> None:
    """Keep only the inputs of the transformer layers for the backward pass, which then computes the rest again.

    Chen et al. 2016, arXiv:1604.06174. A layer that changes something outside itself when it runs, as with a cache of
    keys and values that grows, cannot run twice: PyTorch notices in the backward pass and raises.
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
    """Products in the precision that the model's weights are kept in, where some are in less than float32."""
    lowered = next((p.dtype for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)), None)
    place = next(model.parameters()).device.type
    return torch.autocast(place, dtype=lowered or torch.bfloat16, enabled=lowered is not None)
