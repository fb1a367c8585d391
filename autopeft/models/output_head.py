"""A wrapper around a language model's map onto its vocabulary, which can be put on and taken off."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from autopeft.common.exceptions import ModelError

CLOSE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}
"""How much numbers around one may differ by rounding in this precision."""


class OutputHead(nn.Module):
    """Wraps a language model's output layer; a subclass says in `forward` what to return instead of logits.

    Args:
        whole: the map; its tensors stay where they are.
    """

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole

    @property
    def weight(self) -> torch.Tensor:
        """The map's weight, `[words, hidden size]`; some models ask their head for it."""
        return self.whole.get_parameter("weight")

    @property
    def bias(self) -> torch.Tensor | None:
        """The map's bias, if it has one."""
        found: torch.Tensor | None = getattr(self.whole, "bias", None)
        return found

    def put_on(self, model: Any) -> None:
        """Replace the map in its model by this."""
        _replace(model, self.whole, self)

    @classmethod
    def take_off(cls, model: nn.Module) -> None:
        """Put the plain map back wherever one of this class wraps it."""
        for module in list(model.modules()):
            if isinstance(module, cls):
                _replace(model, module, module.whole)

    @staticmethod
    def map_of(model: Any) -> nn.Module:
        """The map of a language model onto its vocabulary, or what stands for it.

        Raises:
            ModelError: it has no single linear one.
        """
        found = model.get_output_embeddings()
        if not isinstance(found, nn.Linear | OutputHead):
            raise ModelError(
                "a language model must have a single linear output layer over its vocabulary, but "
                f"{type(model).__name__} has none; take another model."
            )
        return found

    @staticmethod
    def tolerance(dtype: torch.dtype) -> float:
        """How much numbers around one may differ by rounding in this precision."""
        return CLOSE.get(dtype, CLOSE[torch.bfloat16])


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old and not name.endswith(".whole"):
            model.set_submodule(name, new)
