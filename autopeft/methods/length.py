"""How long candidates train, by the number of rows they train on, and the learning rate that goes with it.

What counts is the number of steps: few rows need many passes, many rows need few. Recorded curves of several tasks say
how many steps pay, and how a rate that is right for a short training has to fall for a longer one
(`benchmarks/bank/lengths.py`, docs/choosing.md).
"""

from __future__ import annotations

import math
from dataclasses import replace

from autopeft.methods.dimensions import Float, Integer
from autopeft.methods.search_space import SearchSpace

USUAL_BATCH = 16
"""Rows of a step that lengths are counted in."""

USUAL_STEPS = 300
"""Steps of a default where no method says otherwise, and rows allow it."""

FEWEST_EPOCHS, MOST_EPOCHS = 4, 24
"""Epochs of a default: with many rows, and with few."""

REFERENCE_STEPS = 100
"""Steps for which methods state their default learning rates."""

POWER = 0.5
"""A rate falls with this power of the steps beyond `REFERENCE_STEPS`."""


def epochs_for(rows: int) -> Integer:
    """The dimension of length for so many rows: from a third of the default to twice as long."""
    default = min(max(round(USUAL_STEPS / steps(1, rows)), FEWEST_EPOCHS), MOST_EPOCHS)
    return Integer(low=max(1, default // 3), high=2 * default, default=default, log=True)


def steps(epochs: int, rows: int, batch: int = USUAL_BATCH) -> int:
    """Of so many epochs, in batches of that size."""
    return epochs * math.ceil(rows / batch)


def scaled_rate(rate: float, epochs: int, rows: int) -> float:
    """A rate that is right for `REFERENCE_STEPS`, for so many epochs; never higher than it is."""
    return rate * math.pow(min(1.0, REFERENCE_STEPS / steps(epochs, rows)), POWER)


def rate_at(epochs: int, rate: float, usual: int) -> float:
    """The rate that goes with so many epochs, from one that goes with the `usual` number."""
    return rate * math.pow(usual / epochs, POWER)


def of_rows(declared: SearchSpace, rows: int) -> SearchSpace:
    """A method's training dimensions, with the length that goes by the rows unless it declares its own."""
    return declared if "epochs" in declared else declared.merged(SearchSpace({"epochs": epochs_for(rows)}))


def with_scaled_rate(training: SearchSpace, rows: int) -> SearchSpace:
    """The training dimensions, with the default rate that goes with the default length.

    A rate that the study gives a single value, or choices, stays.
    """
    rate, epochs = training["learning_rate"], training["epochs"].default
    if not isinstance(rate, Float) or rate.low == rate.high or not isinstance(epochs, int):
        return training
    default = rate.nearest(scaled_rate(rate.default, epochs, rows))
    return training.merged(SearchSpace({"learning_rate": replace(rate, default=default)}))
