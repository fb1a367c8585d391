"""Reads cells of choices: a list of texts, plain or with a name for each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autopeft import CellError, as_text

RULE = "be a list of two texts or more"
ADVICE = 'write them as a JSON list, such as ["yes", "no"], or name a column for each as `choice_columns` in [task]'

Choices = tuple[Any, ...]
"""Texts; or, if each has a name, pairs of a name and a text."""


def as_choices(cell: object) -> Choices:
    """The choices of a row.

    The cell may be a list of texts; a list of pairs of a name and a text; a mapping with the lists `text` and `label`,
    or a list of mappings with these keys, as in ARC and CommonsenseQA, where labels are the names; or any of these as
    JSON.

    Raises:
        CellError: the cell is none of these, or a choice or a name is empty, or a name occurs twice.
    """
    found = _parsed(cell) if isinstance(cell, str) else cell
    if isinstance(found, Mapping):
        found = _pairs(found)
    elif hasattr(found, "tolist"):  # an array
        found = found.tolist()
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        raise CellError(f"is {_kind(found)}", ADVICE, RULE)
    if len(found) < 2:
        raise CellError(f"has {len(found)}", ADVICE, RULE)
    made = [_choice(one) for one in found]
    named = [one for one in made if isinstance(one, tuple)]
    if named and len(named) < len(made):
        raise CellError("has names for only some choices", "name all choices, or none", RULE)
    if len({name for name, _ in named}) < len(named):
        raise CellError("has two choices with the same name", "give each choice its own name", RULE)
    return tuple(made)


def texts_of(choices: Choices) -> list[str]:
    """The choices without their names."""
    return [one if isinstance(one, str) else one[1] for one in choices]


def names_of(choices: Choices) -> list[str]:
    """The names of the choices; empty if they have none."""
    return [one[0] for one in choices if not isinstance(one, str)]


def _parsed(cell: str) -> object:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):  # nested too deep, or numbers with too many digits
        raise CellError("is a text that is not a JSON list", ADVICE, RULE) from None


def _pairs(found: Mapping[Any, Any]) -> list[Any]:
    """A mapping of two lists as pairs."""
    if not {"text", "label"} <= {*found}:
        raise CellError("is a mapping without the lists `text` and `label`", ADVICE, RULE)
    lists = [found["label"], found["text"]]
    lists = [one.tolist() if hasattr(one, "tolist") else one for one in lists]
    if not all(isinstance(one, list | tuple) for one in lists) or len(lists[0]) != len(lists[1]):
        raise CellError("is a mapping whose `text` and `label` are not lists of equal length", ADVICE, RULE)
    return [*zip(*lists, strict=True)]


def _choice(one: object) -> str | tuple[str, str]:
    """A text, or a name and a text."""
    if isinstance(one, Mapping) and {"text", "label"} <= {*one}:
        one = one["label"], one["text"]
    elif hasattr(one, "tolist"):
        one = one.tolist()
    if isinstance(one, list | tuple) and len(one) == 2:
        return _text(one[0]), _text(one[1])
    return _text(one)


def _text(value: object) -> str:
    if value is None:
        raise CellError("has an empty choice", "fill or remove it", RULE)
    try:
        text = as_text(value)
    except CellError as error:
        raise CellError(f"has a choice that {error.found}", ADVICE, RULE) from None
    if not text.strip():
        raise CellError("has an empty choice", "fill or remove it", RULE)
    return text


def _kind(found: object) -> str:
    return "one value" if isinstance(found, str | bytes | int | float | None) else f"a {type(found).__name__}"
