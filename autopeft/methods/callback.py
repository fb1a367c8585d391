"""Hooks around the steps of training, for methods that need more than AdamW's updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class TrainingCallback:
    """A method's hooks into the training of one fold; each does nothing unless it is overridden.

    Folds take turns on one model, whose trained parameters then point at the fold's own tensors. So a callback keeps
    the fold's state in itself. The model's parameters, looked up again in each call, belong to the fold too, but
    nothing else of the model does. The order of calls is `start`, then for each turn `take_turn`, and for each batch
    `loss`, `before_update`, `after_update`. Only `loss` runs with gradients tracked.
    """

    def start(self, total_steps: int) -> None:
        """Training of `total_steps` updates is about to begin, or to go on with `load_state`.

        Make every tensor that the callback keeps here or earlier: the prediction of memory runs only this and `loss`,
        on tensors without data.
        """

    def take_turn(self) -> None:
        """The shared model is now the fold's; put on it the parts of the state that it needs, such as masks."""

    def loss(self) -> Tensor | None:
        """A scalar to add to a batch's loss, such as a penalty: a new float32 tensor; None for nothing to add.

        Called once for each batch, however many parts the batch runs in. The reported loss does not include it.
        """
        return None

    def before_update(self, step: int) -> None:
        """The gradients of a batch are complete and not yet clipped. `step` counts updates, from 1 to `total_steps`."""

    def after_update(self, step: int) -> None:
        """The update with this number was made; the clipped gradients still exist."""

    def state(self) -> Mapping[str, Tensor]:
        """All that the steps so far have changed in the callback, on any device; the same names at every step."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned, now on the CPU; called between `start` and `take_turn`."""
