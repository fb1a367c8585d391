"""Narrows the dimensions of a search space to what a study file says; never wider than their bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autopeft.common.exceptions import SpecError, nearest, shorten
from autopeft.methods.dimensions import (
    MOST_CHOICES,
    Categorical,
    Dimension,
    Float,
    Integer,
    repeated,
)


def _narrow(dimension: Dimension, value: Any, where: str) -> Dimension:
    """`dimension` restricted to what a study file gives for it: one value, a range or a list of choices."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if not 0 < len(values) <= MOST_CHOICES:
        got = f"a list of {len(values):,}" if values else "an empty list"
        raise SpecError(
            f"{where} needs a value, a range [low, high] or a list of at most {MOST_CHOICES} choices, but got {got}."
        )
    if isinstance(dimension, Categorical):
        return _chosen(dimension, values, where)
    for number in values:
        _require(dimension, number, where)
    if len(values) > 2:
        _once(values, where)
        default = min(values, key=lambda number: abs(number - dimension.default))
        return Categorical(choices=tuple(values), default=default, when=dimension.when)
    low, high = values[0], values[-1]
    if low > high:
        raise SpecError(f"{where} must be a range [low, high], but got [{low}, {high}]; swap the two.")
    default = min(max(dimension.default, low), high)
    bounds = dimension.valid  # those of the declared range, whatever the new one is
    if isinstance(dimension, Integer):
        step = dimension.step if (high - low) % dimension.step == 0 else 1
        default = int(low + (default - low) // step * step)
        return replace(dimension, low=low, high=high, step=step, default=default, bounds=bounds)
    return replace(dimension, low=float(low), high=float(high), default=float(default), bounds=bounds)


def _chosen(dimension: Categorical, values: list[Any], where: str) -> Categorical:
    for choice in values:
        if choice not in dimension:
            if reason := next((why for value, why in dimension.refused if value == choice), ""):
                raise SpecError(f"{where} cannot be {shorten(choice)} here: {reason}")
            hint = f"; {nearest(choice, map(str, dimension.choices))}" if isinstance(choice, str) else "."
            raise SpecError(f"{where} must be one of {dimension}, but got {shorten(choice)}{hint}")
    _once(values, where)
    default = dimension.default if dimension.default in values else values[0]
    return replace(dimension, choices=tuple(values), default=default)


def _once(values: list[Any], where: str) -> None:
    if (double := repeated(values)) is not None:
        raise SpecError(f"{where} must have each choice once, but has {shorten(double)} twice; remove one.")


def _require(dimension: Integer | Float, number: Any, where: str) -> None:
    """Refuse what is not a number of the dimension's kind, or not within its bounds."""
    kind, accepted = ("a whole number", int) if isinstance(dimension, Integer) else ("a number", int | float)
    if not isinstance(number, accepted) or isinstance(number, bool):
        raise SpecError(f"{where} must be {kind}, or a range [low, high], but got {shorten(number)}.")
    if number not in dimension.valid:
        rule = str(dimension.valid) or "a finite number"
        raise SpecError(
            f"{where} must be {rule}, but got {shorten(number)}; the range searched by default is {dimension}."
        )
