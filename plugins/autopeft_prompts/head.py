"""The head of a language model, cut down to the words that labels have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopeft import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}
"""Difference of two logits, as a share of the largest, that rounding explains in that precision."""


class WordHead(nn.Module):
    """A linear map onto a vocabulary that gives the logits of some words alone.

    A row's logits then take words, and not the vocabulary, for each of its tokens.

    Args:
        whole: the map onto all words; its tensors stay where they are.
        words: ids.
    """

    words: torch.Tensor

    def __init__(self, whole: nn.Module, words: Sequence[int]) -> None:
        super().__init__()
        self.whole = whole
        self.register_buffer("words", torch.tensor(words, device=_weight(whole).device), persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """Of all words: some models ask their head for it."""
        return _weight(self.whole)

    @property
    def bias(self) -> torch.Tensor | None:
        """Likewise, where there is one."""
        found: torch.Tensor | None = getattr(self.whole, "bias", None)
        return found

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[…, hidden size]` → `[…, words]`."""
        bias = None if self.bias is None else self.bias[self.words]
        return nn.functional.linear(hidden, self.weight[self.words], bias)


def _weight(module: nn.Module) -> torch.Tensor:
    return module.get_parameter("weight")


def put_on(model: Any, words: Sequence[int]) -> None:
    """Cut the head of a model down to those words."""
    _replace(model, output_of(model), WordHead(output_of(model), words))


def take_off(model: Any) -> None:
    """Put its whole head back where it was cut down."""
    for module in list(model.modules()):
        if isinstance(module, WordHead):
            _replace(model, module, module.whole)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module is old and not name.endswith(".whole"):
            model.set_submodule(name, new)


def output_of(model: Any) -> nn.Module:
    """The map of a language model onto its vocabulary.

    Raises:
        ModelError: it has none that can be told.
    """
    found = model.get_output_embeddings()
    if not isinstance(found, nn.Linear):
        raise _none(model)
    return found


def check(model: Any, words: Sequence[int]) -> None:
    """Make sure that a model gives the same logits of these words with its head cut down to them.

    Raises:
        ModelError: it does not.
    """
    ids = torch.tensor([[*words, *words][:8]], device=model.device)
    with torch.no_grad():
        whole = model(input_ids=ids).logits[..., list(words)]
        try:
            put_on(model, words)
            found = model(input_ids=ids).logits
        except (RuntimeError, TypeError, AttributeError) as error:
            raise _none(model) from error
        finally:
            take_off(model)
    close = CLOSE.get(whole.dtype, CLOSE[torch.bfloat16]) * float(whole.abs().max())
    if found.shape != whole.shape or not torch.allclose(found.float(), whole.float(), rtol=0, atol=close):
        raise _none(model)


def _none(model: Any) -> ModelError:
    return ModelError(
        f"prompt-classification needs a model whose logits are one linear map of its states, but that of "
        f"{type(model).__name__} is something else; take another model."
    )
