"""The head of a language model, cut down to the words of the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopeft import ModelError, OutputHead

if TYPE_CHECKING:
    from collections.abc import Sequence


class WordHead(OutputHead):
    """A linear map onto a vocabulary that gives the logits of only some words.

    Each token's logits then take the memory of these words, not of the whole vocabulary.

    Args:
        whole: the map onto all words; its tensors stay where they are.
        words: ids.
    """

    words: torch.Tensor

    def __init__(self, whole: nn.Module, words: Sequence[int]) -> None:
        super().__init__(whole)
        self.register_buffer("words", torch.tensor(words, device=self.weight.device), persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[…, hidden size]` → `[…, words]`."""
        bias = None if self.bias is None else self.bias[self.words]
        return nn.functional.linear(hidden, self.weight[self.words], bias)


def check(model: Any, words: Sequence[int]) -> None:
    """Make sure that a model gives the same logits of these words after its head is cut down to them.

    Raises:
        ModelError: it does not.
    """
    ids = torch.tensor([[*words, *words][:8]], device=model.device)
    with torch.no_grad():
        whole = model(input_ids=ids).logits[..., list(words)]
        head = WordHead(OutputHead.map_of(model), words)
        try:
            head.put_on(model)
            found = model(input_ids=ids).logits
        except (RuntimeError, TypeError, AttributeError) as error:
            raise _none(model) from error
        finally:
            WordHead.take_off(model)
    close = OutputHead.tolerance(whole.dtype) * float(whole.abs().max())
    if found.shape != whole.shape or not torch.allclose(found.float(), whole.float(), rtol=0, atol=close):
        raise _none(model)


def _none(model: Any) -> ModelError:
    return ModelError(
        f"prompt-classification needs a model whose logits are one linear map of its states, but "
        f"{type(model).__name__} has another kind of head; give another model."
    )
