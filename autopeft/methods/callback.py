"""What a method does around the steps of its training, for methods that need more than AdamW's updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class TrainingCallback:
    """A method's hooks into the training of one fold; each does nothing unless it is overridden.

    Folds take turns on one model, whose trained parameters are pointed at the fold's own tensors. So a callback keeps
    what is the fold's in itself: the parameters of the model, looked up anew in each call, are the fold's too, but
    nothing else of the model is. The order of calls is `start`, then for each turn `take_turn` and for each batch
    `loss`, `before_update`, `after_update`; only `loss` runs with gradients tracked.
    """

    def start(self, total_steps: int) -> None:
        """Training of `total_steps` updates is about to begin, or to go on with `load_state`.

        Make every tensor that is kept here or before: a prediction of memory runs this and `loss` on tensors without
        data, and no more.
        """

    def take_turn(self) -> None:
        """The shared model is the fold's from now on; put on it what of the state has to stand there, such as masks."""

    def loss(self) -> Tensor | None:
        """A scalar to add to a batch's loss, such as a penalty, made anew in float32; None for nothing to add.

        Called once a batch, in however many parts it runs. The loss that is reported leaves it out.
        """
        return None

    def before_update(self, step: int) -> None:
        """The gradients of a batch are complete and not yet clipped. `step` counts updates, from 1 to `total_steps`."""

    def after_update(self, step: int) -> None:
        """The update of that number was made; the clipped gradients are still there."""

    def state(self) -> Mapping[str, Tensor]:
        """All that the steps so far have changed here, on any device; the same names at every step."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, on the CPU; called between `start` and `take_turn`."""
