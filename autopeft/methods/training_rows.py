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
        tensors: by name, from the kind of task, on the model's device.
        run: runs a model on them, without gradients and in the precision of training; returns its outputs.
    """

    tensors: Mapping[str, Tensor]
    run: Callable[[nn.Module], Any]

    def filled(self, states: Tensor, *, of_decoder: bool = False) -> Tensor:
        """The states of tokens, `[places, width]`, among the states `[…, width]` that a module gets for these rows.

        Padding is left out, and so are states that belong to no row, such as embeddings of positions. If rows have no
        padding, as with images, every place counts.

        Args:
            states: the module's input.
            of_decoder: whether they belong to the text that a decoder reads besides an encoder's.
        """
        flat = states.reshape(-1, states.shape[-1])
        mask = self._mask(of_decoder=of_decoder)
        if mask is not None and mask.numel() == len(flat):
            return flat[mask.flatten()]
        rows = len(next(iter(self.tensors.values())) if mask is None else mask)
        return flat if states.ndim > 1 and len(states) % rows == 0 else flat[:0]

    def _mask(self, *, of_decoder: bool) -> Tensor | None:
        """Where the rows have tokens, boolean `[rows, length]`; None where all have the same number of places."""
        if of_decoder and "decoder_input_ids" in self.tensors:
            return self.tensors["labels"] != -100
        mask = self.tensors.get("attention_mask")
        if mask is not None and mask.ndim > 2:  # several sequences side by side
            mask = mask.transpose(1, 2).flatten(0, 1)
        return None if mask is None else mask.bool()
