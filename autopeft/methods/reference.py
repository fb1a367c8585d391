"""The settings of training and of each method in a study file, with defaults, as lists and as JSON Schema."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autopeft.methods.candidate import within_bounds
from autopeft.methods.dimensions import Categorical, Dimension, Integer, enabling
from autopeft.methods.length import FEWEST_EPOCHS, MOST_EPOCHS
from autopeft.methods.training_space import TRAINING_SPACE

if TYPE_CHECKING:
    from autopeft.methods.contract import PeftMethod
    from autopeft.methods.registry import Registry
    from autopeft.methods.search_space import SearchSpace

TRAINING = {
    "epochs": "Passes over the training rows.",
    "learning_rate": "Peak learning rate of AdamW.",
    "batch_size": "Rows in a training step.",
    "warmup_ratio": "Share of the steps over which the learning rate rises from 0.",
    "weight_decay": "Weight decay of AdamW.",
}
"""The description of each training dimension."""

BY_ROWS = f"{FEWEST_EPOCHS} to {MOST_EPOCHS}, more where there are fewer rows"
"""The default of `epochs` in a study."""


@dataclass(frozen=True)
class Described:
    """A dimension, in words.

    Attributes:
        name: of the dimension.
        takes: its range or its choices.
        default: its value where a search begins.
        note: when it exists, or what it is.
    """

    name: str
    takes: str
    default: str
    note: str = ""


def what_it_is(method: PeftMethod) -> str:
    """The first sentence about a method, from its class's docstring."""
    first = (inspect.getdoc(type(method)) or method.paper).strip().partition("\n\n")[0]
    sentence = " ".join(first.split()).partition(". ")[0]
    return sentence.rstrip(".")


def own_dimensions(method: PeftMethod) -> list[Described]:
    """A method's own dimensions, on a typical model."""
    return [_described(name, dimension) for name, dimension in method.search_space().items()]


def training_dimensions(method: PeftMethod) -> list[Described]:
    """The training dimensions, with the method's own ranges."""
    declared = method.training_space()
    found = [_described(name, dimension, TRAINING.get(name, "")) for name, dimension in _training(declared).items()]
    if "epochs" in declared:
        return found
    return [Described(one.name, "by row count", BY_ROWS, one.note) if one.name == "epochs" else one for one in found]


def _training(declared: SearchSpace) -> SearchSpace:
    try:
        return within_bounds(declared)
    except ValueError:  # `autopeft check` reports it
        return TRAINING_SPACE.merged(declared)


def _described(name: str, dimension: Dimension, note: str = "") -> Described:
    notes = [note] * bool(note)
    if dimension.when:
        values = " or ".join(_word(value) for value in enabling(dimension))
        notes.append(f"only if {dimension.when[0]} is {values}")
    if dimension.optional:
        notes.append("only if the study file sets it")
    default = f"{dimension.default:g}" if isinstance(dimension.default, float) else _word(dimension.default)
    return Described(name, str(dimension), default, "; ".join(notes))


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def training_schema() -> dict[str, Any]:
    """JSON Schema of the training dimensions under [search], by name."""
    found = {}
    for name, dimension in TRAINING_SPACE.items():
        rule = _schema(_described(name, dimension), dimension, bounded=True)
        told = f"{TRAINING[name]} A value, a range [low, high], or a list of choices; methods may have other ranges."
        if name == "epochs":
            rule.pop("default")
            told = f"{TRAINING[name]} A value or a range. Default: {BY_ROWS}."
        found[name] = {**rule, "description": told}
    return found


def search_schema(registry: Registry) -> dict[str, Any]:
    """The same, with a table for each method found."""
    tables = {}
    for name, method in registry.methods.items():
        spaces = {**dict(_training(method.training_space())), **dict(method.search_space())}
        described = {one.name: one for one in (*training_dimensions(method), *own_dimensions(method))}
        properties = {key: _schema(described[key], dimension) for key, dimension in spaces.items()}
        tables[name] = {
            "type": "object",
            "description": f"{what_it_is(method)}.",
            "properties": properties,
            "additionalProperties": True,
        }
    return {**training_schema(), **tables}


def _schema(described: Described, dimension: Dimension, *, bounded: bool = False) -> dict[str, Any]:
    told = f"{described.takes}; default {described.default}" + f" ({described.note})" * bool(described.note)
    rule: dict[str, Any] = {"description": f"{told}."}
    if isinstance(dimension, Categorical):
        return {**rule, "default": dimension.default}
    kind = {"type": "integer" if isinstance(dimension, Integer) else "number"}
    limits: dict[str, Any] = {}
    if bounded:
        valid = dimension.valid
        given = {"minimum": valid.least, "maximum": valid.most, "exclusiveMinimum": valid.above}
        limits = {key: value for key, value in given.items() if value is not None}
    several = {"type": "array", "items": kind, "minItems": 1}
    return {**rule, "default": dimension.default, "anyOf": [{**kind, **limits}, several]}
