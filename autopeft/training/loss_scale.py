"""The factor of a loss that is differentiated in float16, so that small gradients do not become 0 there.

Micikevicius et al. 2018, arXiv:1710.03740. `torch.amp.GradScaler` does it for an optimiser as a whole; here every fold
has a factor of its own, so that one whose gradients overflow costs no other fold a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

START = 2.0**16
GROWTH_STEPS = 2000
"""Steps in a row without an overflow after which a factor is doubled; it is halved after each step with one. All three
numbers are those of `torch.amp.GradScaler`."""

LEAST = 1.0
"""Below it the unscaled gradients overflow, and no factor helps."""

PROBE = 2.0**10
"""For a single pass whose gradients are compared, not trained on: few become 0, and hardly any overflow."""


class LossScale:
    """The factor of each fold's loss.

    Attributes:
        factors: float32 `[folds]`; powers of two, so that they change no digit of a gradient.
        good: steps since the factor last changed, int64 `[folds]`.
        overflowed: whether the fold's gradients were not finite in the latest step, bool `[folds]`.
    """

    def __init__(self, folds: int, device: torch.device | str) -> None:
        self.factors = torch.full((folds,), START, device=device)
        self.good = torch.zeros(folds, dtype=torch.int64, device=device)
        self.overflowed = torch.zeros(folds, dtype=torch.bool, device=device)

    @torch.no_grad()
    def unscale(self, parameters: Sequence[torch.Tensor]) -> None:
        """Divide each fold's gradients by its factor, without waiting for a GPU; a fold that overflowed gets zeros.

        Args:
            parameters: stacks `[folds, …]`, or one fold's tensors `[…]`.
        """
        folds = len(self.factors)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        largest = [torch.linalg.vector_norm(g.reshape(folds, -1), float("inf"), dim=1) for g in gradients]
        self.overflowed = ~torch.stack(largest).isfinite().all(dim=0)
        for gradient in gradients:
            shape = (-1, *[1] * (gradient.ndim - 1)) if folds > 1 else ()
            gradient.div_(self.factors.view(shape)).masked_fill_(self.overflowed.view(shape), 0.0)

    @torch.no_grad()
    def update(self) -> None:
        """Halve the factors of the folds that overflowed, and double those that did not for `GROWTH_STEPS`."""
        due = ~self.overflowed & (self.good + 1 >= GROWTH_STEPS)
        self.factors *= torch.where(self.overflowed, 0.5, torch.where(due, 2.0, 1.0))
        self.good = torch.where(self.overflowed | due, 0, self.good + 1)

    @property
    def exhausted(self) -> bool:
        """Whether a fold's gradients overflow with any factor; waits for the device."""
        return bool((self.factors < LEAST).any())

    def state(self) -> dict[str, torch.Tensor]:
        """What the steps so far have changed, `[folds]` each."""
        return {"factors": self.factors, "good": self.good}

    def load_state(self, name: str, values: torch.Tensor) -> None:
        """Restore one entry of `state()`, for the same number of folds."""
        getattr(self, name).copy_(values.reshape(-1))
