"""A search space is declared, not coded: dimensions by name, each with a default and, if need be, a condition.

Declared spaces can be shown, counted, narrowed by a study file and checked without a trial or a model. Values are
drawn by Optuna; this module only states the distributions, so that listing methods needs no heavy import.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autopeft.common.bounds import Bounds, default_bounds, is_number
from autopeft.common.exceptions import SpecError, brief, nearest, shorten
from autopeft.common.params import Params, ParamValue

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


When = tuple[str, ParamValue | tuple[ParamValue, ...]]
"""`("prefix_projection", True)`: the dimension exists only where that sibling has that value, or one of a tuple's."""


@dataclass(frozen=True, kw_only=True)
class Integer:
    """Whole numbers from `low` to `high`, both included, in steps of `step` or on a log scale.

    A study file may leave that range, but not `bounds`. Default: at least 1 where `low` is, at least 0 where `low` is.
    """

    low: int
    high: int
    default: int
    log: bool = False
    step: int = 1
    when: When | None = None
    bounds: Bounds | None = None

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
    """Real numbers from `low` to `high`, both included, evenly or on a log scale.

    A study file may leave that range, but not `bounds`. Default: above 0 on a log scale, and at least 0 where `low` is.
    """

    low: float
    high: float
    default: float
    log: bool = False
    when: When | None = None
    bounds: Bounds | None = None

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
    """One of `choices`."""

    choices: tuple[ParamValue, ...]
    default: ParamValue
    when: When | None = None

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
        """The choice that `value` is; of numbers the nearest one; otherwise the default."""
        same = [choice for choice in self.choices if type(value) is type(choice) and value == choice]
        numbers = [choice for choice in self.choices if is_number(choice)]
        if same or not is_number(value) or not numbers:
            return same[0] if same else self.default
        return min(numbers, key=lambda choice: abs(choice - value))

    def __str__(self) -> str:
        return " | ".join(str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in self.choices)


Dimension = Integer | Float | Categorical

MOST_CHOICES = 1000
"""That a study file may give a dimension."""


class SearchSpace(Mapping[str, Dimension]):
    """Dimensions by name, in the order they are drawn: a conditional one comes after the sibling it depends on.

    Raises:
        ValueError: a default lies outside its own dimension, a range is empty, or a condition names no earlier
            sibling or a value that sibling cannot take.
    """

    def __init__(self, dimensions: Mapping[str, Dimension]) -> None:
        self._dimensions = dict(dimensions)
        for position, (name, dimension) in enumerate(self._dimensions.items()):
            _check(name, dimension, dict(itertools.islice(self._dimensions.items(), position)))

    def __getitem__(self, name: str) -> Dimension:
        return self._dimensions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dimensions)

    def __len__(self) -> int:
        return len(self._dimensions)

    def suggest(self, trial: BaseTrial, prefix: str = "") -> dict[str, ParamValue]:
        """Draw one point; Optuna knows each dimension as `prefix` + its name."""
        params: dict[str, ParamValue] = {}
        for name, dimension in self.items():
            if _active(dimension, params):
                params[name] = dimension.suggest(trial, prefix + name)
        return params

    def defaults(self) -> dict[str, ParamValue]:
        """The point every dimension's default describes."""
        return self.nearest({})

    def nearest(self, values: Mapping[str, object]) -> dict[str, ParamValue]:
        """The point of this space nearest to `values`: a dimension not among them has its default."""
        params: dict[str, ParamValue] = {}
        for name, dimension in self.items():
            if _active(dimension, params):
                params[name] = dimension.nearest(values[name]) if name in values else dimension.default
        return params

    def corners(self) -> Iterator[dict[str, ParamValue]]:
        """Every combination of the dimensions' extremes, each point once."""
        seen = set()
        for values in itertools.product(*(dimension.extremes() for dimension in self.values())):
            params: dict[str, ParamValue] = {}
            value: ParamValue
            for (name, dimension), value in zip(self.items(), values, strict=True):
                if _active(dimension, params):
                    params[name] = value
            if (key := tuple(params.items())) not in seen:
                seen.add(key)
                yield params

    def __contains__(self, key: object) -> bool:
        return key in self._dimensions

    def holds(self, params: Params) -> bool:
        """Whether `params` is a point of this space: every active dimension present and in range, no other."""
        active = [name for name, dimension in self.items() if _active(dimension, params)]
        return set(active) == set(params) and all(params[name] in self[name] for name in active)

    def merged(self, other: SearchSpace) -> SearchSpace:
        """This space with `other`'s dimensions added, and put in place of those of the same name."""
        return SearchSpace({**self, **other})

    def narrowed(self, overrides: Mapping[str, Any], where: str) -> SearchSpace:
        """The space a study file asks for.

        A single value fixes a dimension; `[low, high]` gives a number a new range; any other list gives the
        choices. `where` names the table of the file for error messages. A dimension whose condition can no longer hold
        is dropped.

        Raises:
            SpecError: an unknown dimension, or a value it cannot take.
        """
        for name in overrides:
            if name not in self:
                raise SpecError(
                    f'"{brief(name)}" in {where} is no dimension of this search space: {nearest(name, self)}'
                )
        kept: dict[str, Dimension] = {}
        for name, dimension in self.items():
            own = _narrow(dimension, overrides[name], f"{where}.{name}") if name in overrides else dimension
            if own.when is None:
                kept[name] = own
            elif possible := tuple(value for value in enabling(own) if value in kept.get(own.when[0], ())):
                kept[name] = replace(own, when=(own.when[0], possible if len(possible) > 1 else possible[0]))
        return SearchSpace(kept)


def enabling(dimension: Dimension) -> tuple[ParamValue, ...]:
    """The values of a sibling with which a conditional dimension exists; none where it is not conditional."""
    if dimension.when is None:
        return ()
    values = dimension.when[1]
    return values if isinstance(values, tuple) else (values,)


def readable(method: str, params: Params) -> str:
    """A point as a person reads it, such as `lora r=8 lr=0.001`: fractions with two digits."""
    return " ".join((method, *(f"{key}={f'{v:.2g}' if isinstance(v, float) else v}" for key, v in params.items())))


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
        for value in enabling(dimension):
            if value not in earlier.get(sibling, ()):
                raise ValueError(
                    f'dimension "{name}" depends on "{sibling}" being {value!r}, '
                    "but no dimension declared before it can have that value."
                )


def repeated(values: Iterable[object]) -> object | None:
    """The first of `values` that was there before; 1 and True are two values, 1 and 1.0 are not."""
    seen: list[tuple[bool, object]] = []
    for value in values:
        key = isinstance(value, bool), value
        if key in seen:
            return value
        seen.append(key)
    return None


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
        raise SpecError(f"{where} is a range [low, high], but got [{low}, {high}]; swap the two.")
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
            hint = f"; {nearest(choice, map(str, dimension.choices))}" if isinstance(choice, str) else "."
            raise SpecError(f"{where} must be one of {dimension}, but got {shorten(choice)}{hint}")
    _once(values, where)
    default = dimension.default if dimension.default in values else values[0]
    return replace(dimension, choices=tuple(values), default=default)


def _once(values: list[Any], where: str) -> None:
    if (double := repeated(values)) is not None:
        raise SpecError(f"{where} must have each choice once, but has {shorten(double)} twice; remove one.")


def _require(dimension: Integer | Float, number: Any, where: str) -> None:
    """Refuse what is no number of the dimension's kind, or one that it cannot be."""
    kind, accepted = ("a whole number", int) if isinstance(dimension, Integer) else ("a number", int | float)
    if not isinstance(number, accepted) or isinstance(number, bool):
        raise SpecError(f"{where} must be {kind} or a range [low, high] of such, but got {shorten(number)}.")
    if number not in dimension.valid:
        rule = str(dimension.valid) or "a finite number"
        raise SpecError(
            f"{where} must be {rule}, but got {shorten(number)}; the range searched by default is {dimension}."
        )
