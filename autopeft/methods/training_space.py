"""The training dimensions, which are searched with every method's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.common.bounds import Bounds
from autopeft.methods.dimensions import Float, Integer
from autopeft.methods.search_space import SearchSpace

if TYPE_CHECKING:
    from autopeft.common.params import ParamValue

TRAINING_SPACE = SearchSpace(
    {
        "epochs": Integer(low=2, high=4, default=4, bounds=Bounds(least=1, most=10_000)),
        "learning_rate": Float(low=1e-4, high=1e-2, log=True, default=1e-3, bounds=Bounds(above=0, most=1000)),
        "batch_size": Integer(low=16, high=32, step=16, default=16, bounds=Bounds(least=1, most=2**20)),
        "warmup_ratio": Float(low=0.0, high=0.2, default=0.06, bounds=Bounds(least=0, most=1)),
        "weight_decay": Float(low=0.0, high=0.1, default=0.01, bounds=Bounds(least=0, most=1000)),
    }
)
"""The training dimensions of every method; a method may override their ranges, but not their bounds.

In a study the range of `epochs`, and the default rate, depend on the number of rows (`length`). The length is drawn
first, since the default of the rate depends on it.
"""


@dataclass(frozen=True)
class Hyperparameters:
    """One point of the training dimensions, and how it is trained at that point.

    Attributes:
        learning_rate: peak rate, at the end of a linear warm-up.
        epochs: number of passes over the rows.
        batch_size: number of rows in a step.
        warmup_ratio: share of the steps over which the rate rises.
        weight_decay: of AdamW.
        schedule: the rate after the warm-up, see `autopeft.training.schedule`; not a dimension.
        least_warmup: fewest steps of the warm-up, unless that is over half of all; not a dimension.
        averaged: whether a moving average of the trained values is kept and evaluated instead; not a dimension.
    """

    learning_rate: float
    epochs: int
    batch_size: int
    warmup_ratio: float
    weight_decay: float
    schedule: str = "linear"
    least_warmup: int = 0
    averaged: bool = False

    @property
    def point(self) -> dict[str, ParamValue]:
        """The dimensions, by name."""
        return {name: getattr(self, name) for name in TRAINING_SPACE}
