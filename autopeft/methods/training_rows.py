"""Training rows that a method may run its model on before training begins (`PeftMethod.initial_values`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn


@dataclass(frozen=True)
class TrainingRows:
    """A batch of training rows.

    Attributes:
        tensors: by name, as the kind of task made them, on the model's device.
        run: runs a model on them, without gradients and in the precision of training; gives its outputs.
    """

    tensors: Mapping[str, Tensor]
    run: Callable[[nn.Module], Any]

    def filled(self, states: Tensor, *, of_decoder: bool = False) -> Tensor:
        """Of the states `[…, width]` that a module is given for these rows, those of tokens: `[places, width]`.

        Padding is left out, and so are states that are of no row, such as embeddings of positions. Where rows have
        none, as images do, every place counts.

        Args:
            states: what the module was given.
            of_decoder: whether they are of the text that a decoder reads beside an encoder's.
        """
        flat = states.reshape(-1, states.shape[-1])
        mask = self._mask(of_decoder=of_decoder)
        if mask is not None and mask.numel() == len(flat):
            return flat[mask.flatten()]
        rows = len(next(iter(self.tensors.values())) if mask is None else mask)
        return flat if states.ndim > 1 and len(states) % rows == 0 else flat[:0]

    def _mask(self, *, of_decoder: bool) -> Tensor | None:
        """Where the rows have tokens, boolean `[rows, length]`; None where they have as many places each."""
        if of_decoder and "decoder_input_ids" in self.tensors:
            return self.tensors["labels"] != -100
        mask = self.tensors.get("attention_mask")
        if mask is not None and mask.ndim > 2:  # of several sequences side by side
            mask = mask.transpose(1, 2).flatten(0, 1)
        return None if mask is None else mask.bool()
