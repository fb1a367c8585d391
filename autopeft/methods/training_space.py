"""The training dimensions: what every method is searched over beside its own."""

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
"""The training dimensions every method is searched over; a method may override their ranges, but not their bounds.

In a study the range of `epochs`, and the default rate, go by the number of rows (`length`). The length is drawn first,
since a rate is near its default only for a length.
"""


@dataclass(frozen=True)
class Hyperparameters:
    """One point of the training dimensions, and how it is trained at that point.

    Attributes:
        learning_rate: at its peak, which a linear warm-up leads to.
        epochs: passes over the rows.
        batch_size: rows of a step.
        warmup_ratio: share of the steps over which the rate rises.
        weight_decay: of AdamW.
        schedule: what becomes of the rate after the warm-up, see `autopeft.training.schedule`; no dimension.
        least_warmup: steps that the warm-up has at least, unless these are over half of all; no dimension.
        averaged: whether a moving average of what is trained is kept, and evaluated in its place; no dimension.
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
