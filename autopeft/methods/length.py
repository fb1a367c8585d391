"""How long candidates train, by the number of rows they train on, and the learning rate for that length.

The number of steps counts: few rows need many passes, many rows need few. Recorded curves of several tasks show how
many steps pay, and how a rate that suits a short training must fall for a longer one (`benchmarks/bank/lengths.py`,
docs/choosing.md).
"""

from __future__ import annotations

import math
from dataclasses import replace

from autopeft.methods.dimensions import Float, Integer
from autopeft.methods.search_space import SearchSpace

USUAL_BATCH = 16
"""Number of rows of the steps in which lengths are counted."""

USUAL_STEPS = 300
"""Number of steps of a default, unless the method says otherwise or the rows do not allow it."""

FEWEST_EPOCHS, MOST_EPOCHS = 4, 24
"""Number of epochs of a default with many rows, and with few."""

REFERENCE_STEPS = 100
"""Number of steps for which methods state their default learning rates."""

POWER = 0.5
"""A rate falls with this power of the steps beyond `REFERENCE_STEPS`."""


def epochs_for(rows: int) -> Integer:
    """The dimension `epochs` for this many rows: from a third of the default to twice as long."""
    default = min(max(round(USUAL_STEPS / steps(1, rows)), FEWEST_EPOCHS), MOST_EPOCHS)
    return Integer(low=max(1, default // 3), high=2 * default, default=default, log=True)


def steps(epochs: int, rows: int, batch: int = USUAL_BATCH) -> int:
    """The number of steps of this many epochs, in batches of that size."""
    return epochs * math.ceil(rows / batch)


def scaled_rate(rate: float, epochs: int, rows: int) -> float:
    """A rate that suits `REFERENCE_STEPS`, scaled for this many epochs; never higher than `rate`."""
    return rate * math.pow(min(1.0, REFERENCE_STEPS / steps(epochs, rows)), POWER)


def rate_at(epochs: int, rate: float, usual: int) -> float:
    """The rate for this many epochs, from one for the `usual` number of epochs."""
    return rate * math.pow(usual / epochs, POWER)


def of_rows(declared: SearchSpace, rows: int) -> SearchSpace:
    """A method's training dimensions, with a length that depends on the rows unless it declares its own."""
    return declared if "epochs" in declared else declared.merged(SearchSpace({"epochs": epochs_for(rows)}))


def with_scaled_rate(training: SearchSpace, rows: int) -> SearchSpace:
    """The training dimensions, with the default rate for the default length.

    A rate for which the study gives a single value, or choices, stays.
    """
    rate, epochs = training["learning_rate"], training["epochs"].default
    if not isinstance(rate, Float) or rate.low == rate.high or not isinstance(epochs, int):
        return training
    default = rate.nearest(scaled_rate(rate.default, epochs, rows))
    return training.merged(SearchSpace({"learning_rate": replace(rate, default=default)}))
