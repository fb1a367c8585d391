"""The learning rate of each step, as a factor of its peak."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from autopeft.methods.training_space import Hyperparameters

LINEAR, CONSTANT, WSD = "linear", "constant", "wsd"

COOLDOWN = 0.2
"""Share of the steps over which `wsd` cools down; 0.1 to 0.2 do best in Hägele et al. 2024, arXiv:2405.18392."""


def cooldown_of(steps: int) -> int:
    """Over how many of `steps` steps `wsd` cools down."""
    return max(1, round(COOLDOWN * steps))


@dataclass(frozen=True)
class Schedule:
    """A linear rise, and what follows it.

    - `linear`: a linear fall that ends just above zero.
    - `constant`: the peak. It may stop at any step, and cool down from there.
    - `wsd` (warm-up, stable, decay): the peak, and over the last steps 1 - sqrt of the part of the cooldown that is
      done, as in Hägele et al. 2024, arXiv:2405.18392.

    Attributes:
        kind: one of these.
        steps: of the whole training.
        warmup: steps of the rise.
        cooldown: the last steps, over which `wsd` falls.
    """

    kind: str
    steps: int
    warmup: int
    cooldown: int = 0

    @classmethod
    def of(cls, hyper: Hyperparameters, steps: int) -> Self:
        """The schedule of a training of `steps` steps.

        Raises:
            ValueError: there is no schedule of that name.
        """
        if hyper.schedule not in (LINEAR, CONSTANT, WSD):
            known = ", ".join((LINEAR, CONSTANT, WSD))
            raise ValueError(f"`schedule` must be one of {known}, but is {hyper.schedule!r}.")
        warmup = round(hyper.warmup_ratio * steps)
        if hyper.least_warmup:
            warmup = min(max(hyper.least_warmup, warmup), steps // 2)
        return cls(hyper.schedule, steps, warmup, cooldown_of(steps) if hyper.schedule == WSD else 0)

    def factor(self, done: int) -> float:
        """The factor of the step that follows `done` steps."""
        rise, left = (done + 1) / (self.warmup + 1), self.steps - done
        if self.kind == LINEAR:
            return min(rise, left / max(1, self.steps - self.warmup))
        if self.cooldown == 0:
            return min(rise, 1.0)
        return min(rise, 1 - math.sqrt(max(0, self.cooldown - left) / self.cooldown))

    def cooled(self, done: int, steps: int) -> Self:
        """This schedule up to step `done`, then a cooldown of `steps` steps, and the end.

        Raises:
            ValueError: the rate is already falling there.
        """
        if self.kind == LINEAR or (self.cooldown and done > self.steps - self.cooldown):
            raise ValueError(
                f"a cooldown must start where the rate is constant, but after {done} of {self.steps} steps the rate of "
                f"`{self.kind}` is falling; train with `{CONSTANT}`."
            )
        return replace(self, kind=WSD, steps=done + steps, cooldown=steps)
