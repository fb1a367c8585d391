"""Whether a text is JSON (RFC 8259), and whether it has the values of its reference.

A code fence around all of it (```` ``` ```` or ```` ```json ````) is not part of the text. A number, a text, true,
false or null alone is JSON too; `NaN` is not.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from autopeft.tasks.text_scores.score import best, mean_of

FENCE = "```"


class Number(NamedTuple):
    """An exact number of any size; unlike Python's own it is never equal to true or false."""

    value: Decimal | str


def _number(digits: str) -> Number:
    try:
        return Number(Decimal(digits))
    except InvalidOperation:  # its power of ten has more than 18 digits
        return Number(digits)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read(text: str) -> Any:
    """The value of a text.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deep for Python, about a thousand times.
    """
    text = text.strip()
    if text.startswith(FENCE) and text.endswith(FENCE) and len(text) > 2 * len(FENCE):
        text = text[len(FENCE) : -len(FENCE)].removeprefix("json").removeprefix("JSON")
    return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refused)


def valid(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        _read(text)
    except (ValueError, RecursionError):
        return False
    return True


def same_values(answer: str, reference: str) -> float:
    """Whether both are JSON with equal values; the order of keys does not matter, and 1, 1.0 and 1e0 are equal."""
    try:
        return float(_read(answer) == _read(reference))
    except (ValueError, RecursionError):
        return 0.0


SCORES = {
    "valid_json": mean_of(lambda answer, references: float(valid(answer))),
    "json_match": best(same_values),
}
