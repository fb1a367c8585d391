"""A search space is declared, not coded: dimensions by name, each with a default and, if needed, a condition.

Declared spaces can be shown, counted, narrowed by a study file and checked without a trial or a model. Optuna draws the
values; this module only states the distributions, so that listing methods needs no heavy import.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import SpecError, brief, nearest
from autopeft.methods.dimensions import (
    Dimension,
    _active,
    _check,
    enabling,
)
from autopeft.methods.narrowing import _narrow

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

    from autopeft.common.params import Params, ParamValue

NOTHING: Mapping[str, str] = MappingProxyType({})


class SearchSpace(Mapping[str, Dimension]):
    """Dimensions by name, in the order they are drawn: a conditional one comes after the sibling it depends on.

    Raises:
        ValueError: a default is outside its own dimension, a range is empty, or a condition does not name an earlier
            sibling and a value that it can have.
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

    def suggest(self, trial: BaseTrial, prefix: str = "", called: Mapping[str, str] = NOTHING) -> dict[str, ParamValue]:
        """Draw one point; Optuna's name of a dimension is `prefix` + its name, or + its name in `called`."""
        params: dict[str, ParamValue] = {}
        for name, dimension in self.items():
            if _active(dimension, params):
                params[name] = dimension.suggest(trial, prefix + called.get(name, name))
        return params

    def defaults(self) -> dict[str, ParamValue]:
        """The point of all defaults."""
        return self.nearest({})

    def nearest(self, values: Mapping[str, object]) -> dict[str, ParamValue]:
        """The point of this space nearest to `values`; a dimension not among them gets its default."""
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
        """Whether `params` is a point of this space: exactly the active dimensions, each in its range."""
        active = [name for name, dimension in self.items() if _active(dimension, params)]
        return set(active) == set(params) and all(params[name] in self[name] for name in active)

    def merged(self, other: SearchSpace) -> SearchSpace:
        """This space with `other`'s dimensions added, which replace those of the same name."""
        return SearchSpace({**self, **other})

    def narrowed(self, overrides: Mapping[str, Any], where: str) -> SearchSpace:
        """The space that a study file asks for.

        A single value fixes a dimension; `[low, high]` gives a number a new range; any other list gives the choices.
        `where` names the file's table in error messages. A dimension whose condition can no longer hold is dropped, and
        so is an optional one that the study does not name.

        Raises:
            SpecError: a dimension is unknown, or cannot have a value.
        """
        for name in overrides:
            if name not in self:
                raise SpecError(
                    f'"{brief(name)}" in {where} is not a dimension of this search space: {nearest(name, self)}'
                )
        kept: dict[str, Dimension] = {}
        for name, dimension in self.items():
            if dimension.optional and name not in overrides:
                continue
            own = _narrow(dimension, overrides[name], f"{where}.{name}") if name in overrides else dimension
            own = replace(own, optional=False)  # the study has named it
            if own.when is None:
                kept[name] = own
            elif possible := tuple(value for value in enabling(own) if value in kept.get(own.when[0], ())):
                kept[name] = replace(own, when=(own.when[0], possible if len(possible) > 1 else possible[0]))
        return SearchSpace(kept)


def readable(method: str, params: Params) -> str:
    """A point for a person to read, such as `lora r=8 lr=0.001`: fractions have two digits."""
    return " ".join((method, *(f"{key}={f'{v:.2g}' if isinstance(v, float) else v}" for key, v in params.items())))
