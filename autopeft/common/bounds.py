"""The valid values of a number, which may go beyond the range that is searched by default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeGuard

LARGEST_WHOLE = 2**31 - 1
"""The largest whole number where no smaller limit is given; no size or count of a model comes near it."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of a dimension that no study file may pass; each is optional.

    Attributes:
        least: the smallest valid value.
        above: valid values are greater than this.
        most: the largest valid value.
        below: valid values are less than this.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, value: object) -> bool:
        return (
            is_number(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{words} {limit}" for words, limit in limits.items() if limit is not None)


def default_bounds(low: float, *, whole: bool, log: bool) -> Bounds:
    """The bounds of a dimension that declares none: they keep its kind of number, and its range's side of zero."""
    most = LARGEST_WHOLE if whole else None
    if whole:
        return Bounds(least=1 if low >= 1 else 0 if low >= 0 else -LARGEST_WHOLE, most=most)
    return Bounds(above=0) if log else Bounds(least=0) if low >= 0 else Bounds()


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether `value` is a number that a float can hold; True and False are not numbers."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
