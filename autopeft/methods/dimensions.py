"""Dimensions of a search space: whole numbers, numbers and choices, each with a default and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.common.bounds import Bounds, default_bounds, is_number
from autopeft.common.params import Params, ParamValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from optuna.trial import BaseTrial


When = tuple[str, ParamValue | tuple[ParamValue, ...]]
"""`("prefix_projection", True)`: the dimension exists only if that sibling has that value, or one of a tuple's values.

Also, any dimension may be `optional`: it exists only if a study file names it, so it costs other searches nothing. A
candidate without it must be the same as at its default.
"""


@dataclass(frozen=True, kw_only=True)
class Integer:
    """Whole numbers from `low` to `high`, both included, in steps of `step` or on a log scale.

    A study file may leave that range, but not `bounds`. Default: at least 1 if `low` is, else at least 0 if `low` is.
    """

    low: int
    high: int
    default: int
    log: bool = False
    step: int = 1
    when: When | None = None
    bounds: Bounds | None = None
    optional: bool = False

    @property
    def valid(self) -> Bounds:
        """`bounds`, or their default."""
        return self.bounds or default_bounds(self.low, whole=True, log=self.log)

    def __contains__(self, value: object) -> bool:
        return (
            isinstance(value, int)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
            and (value - self.low) % self.step == 0
        )

    def suggest(self, trial: BaseTrial, name: str) -> int:
        """Ask Optuna for a value."""
        return int(trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log))

    def extremes(self) -> tuple[int, ...]:
        """The two ends of the range."""
        return tuple(dict.fromkeys((self.low, self.low + (self.high - self.low) // self.step * self.step)))

    def nearest(self, value: object) -> int:
        """The value of this dimension nearest to a number; the default for anything else."""
        if not is_number(value):
            return self.default
        steps = round((value - self.low) / self.step)
        return self.low + min(max(steps, 0), (self.high - self.low) // self.step) * self.step

    def __str__(self) -> str:
        if self.low == self.high:
            return str(self.low)
        return f"{self.low}…{self.high}" + (" log" if self.log else f" step {self.step}" * (self.step > 1))


@dataclass(frozen=True, kw_only=True)
class Float:
    """Real numbers from `low` to `high`, both included, on a linear or a log scale.

    A study file may leave that range, but not `bounds`. Default: above 0 on a log scale, and at least 0 if `low` is.
    """

    low: float
    high: float
    default: float
    log: bool = False
    when: When | None = None
    bounds: Bounds | None = None
    optional: bool = False

    @property
    def valid(self) -> Bounds:
        """`bounds`, or their default."""
        return self.bounds or default_bounds(self.low, whole=False, log=self.log)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def suggest(self, trial: BaseTrial, name: str) -> float:
        """Ask Optuna for a value."""
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))

    def extremes(self) -> tuple[float, ...]:
        """The two ends of the range."""
        return tuple(dict.fromkeys((self.low, self.high)))

    def nearest(self, value: object) -> float:
        """The value of this dimension nearest to a number; the default for anything else."""
        return float(min(max(value, self.low), self.high)) if is_number(value) else self.default

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.low:g}"
        return f"{self.low:g}…{self.high:g}" + " log" * self.log


@dataclass(frozen=True, kw_only=True)
class Categorical:
    """One of `choices`.

    `refused` holds values that the dimension has only on other models, each with the reason, as a sentence for a study
    that asks for one.
    """

    choices: tuple[ParamValue, ...]
    default: ParamValue
    when: When | None = None
    optional: bool = False
    refused: tuple[tuple[ParamValue, str], ...] = ()

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in self.choices)

    def suggest(self, trial: BaseTrial, name: str) -> ParamValue:
        """Ask Optuna for a value."""
        choice = trial.suggest_categorical(name, self.choices)
        assert choice is not None  # Optuna would allow it as a choice; `choices` does not
        return choice

    def extremes(self) -> tuple[ParamValue, ...]:
        """Every choice."""
        return self.choices

    def nearest(self, value: object) -> ParamValue:
        """The choice equal to `value`; for numbers the nearest one; otherwise the default."""
        same = [choice for choice in self.choices if type(value) is type(choice) and value == choice]
        numbers = [choice for choice in self.choices if is_number(choice)]
        if same or not is_number(value) or not numbers:
            return same[0] if same else self.default
        return min(numbers, key=lambda choice: abs(choice - value))

    def __str__(self) -> str:
        return " | ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in self.choices)


Dimension = Integer | Float | Categorical


MOST_CHOICES = 1000
"""Most choices that a study file may give a dimension."""


def enabling(dimension: Dimension) -> tuple[ParamValue, ...]:
    """The values of the sibling for which a conditional dimension exists; empty if it is not conditional."""
    if dimension.when is None:
        return ()
    values = dimension.when[1]
    return values if isinstance(values, tuple) else (values,)


def _active(dimension: Dimension, params: Params) -> bool:
    return dimension.when is None or params.get(dimension.when[0]) in enabling(dimension)


def _check(name: str, dimension: Dimension, earlier: Mapping[str, Dimension]) -> None:
    if isinstance(dimension, Categorical):
        if not dimension.choices:
            raise ValueError(f'dimension "{name}" needs at least one choice, but got none.')
        if (double := repeated(dimension.choices)) is not None:
            raise ValueError(f'dimension "{name}" must have each choice once, but has {double!r} twice.')
    elif not all(map(is_number, (dimension.low, dimension.high))) or not dimension.low <= dimension.high:
        raise ValueError(f'dimension "{name}" needs low <= high, but got {dimension.low} and {dimension.high}.')
    elif dimension.log and dimension.low <= 0:
        raise ValueError(f'dimension "{name}" is on a log scale and needs low > 0, but got {dimension.low}.')
    elif any(end not in dimension.valid for end in (dimension.low, dimension.high)):
        raise ValueError(f'dimension "{name}" must be {dimension.valid}, but its range is {dimension}.')
    elif isinstance(dimension, Integer) and (dimension.step < 1 or (dimension.log and dimension.step > 1)):
        raise ValueError(
            f'dimension "{name}" needs a step of at least 1, and of 1 on a log scale, but got {dimension.step}.'
        )
    if dimension.default not in dimension:
        raise ValueError(f'the default of dimension "{name}" must lie in {dimension}, but is {dimension.default!r}.')
    if dimension.when is not None:
        sibling = dimension.when[0]
        if sibling in earlier and earlier[sibling].optional and not dimension.optional:
            raise ValueError(
                f'dimension "{name}" depends on "{sibling}", which is optional, so it must be optional too.'
            )
        for value in enabling(dimension):
            if value not in earlier.get(sibling, ()):
                raise ValueError(
                    f'dimension "{name}" depends on "{sibling}" being {value!r}, '
                    "but no dimension declared before it can have that value."
                )


def repeated(values: Iterable[object]) -> object | None:
    """The first of `values` that repeats an earlier one; 1 and True are different values, 1 and 1.0 are not."""
    seen: list[tuple[bool, object]] = []
    for value in values:
        key = isinstance(value, bool), value
        if key in seen:
            return value
        seen.append(key)
    return None
