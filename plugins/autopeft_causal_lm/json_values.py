"""Values that JSON can hold: out of JSON text, and out of what tables are made of."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from autopeft import CellError, as_text, quoted

DEEPEST = 50
"""Lists and mappings within each other, at most; Python's own limit depends on who calls."""

DIGITS = 4_000
"""Of a whole number, at most; Python reads and writes no more than 4,300."""

LARGEST = 10**DIGITS

RULE = "hold what JSON can hold"


def from_json(text: str) -> Any:
    """What a JSON text says, read strictly.

    Raises:
        CellError: it is not JSON, is nested too deep, holds NaN, Infinity or a number without end, or an object has a
            key twice, of which Python's reader would keep the last.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_whole_number)
    except CellError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise CellError("is a text that is not JSON", "write it with json.dumps", RULE) from None


def plain(value: object, left: int = DEEPEST) -> Any:
    """A value in Python's own kinds, as reading its JSON gives it: arrays and tuples are lists.

    Keys of mappings whose value is None are left out: parquet gives each mapping of a column all keys that any has.

    Args:
        value: of a cell.
        left: how much deeper it may be nested.

    Raises:
        CellError: JSON cannot hold it.
    """
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "mM":  # whose times would be numbers
        value = value.tolist()
    if isinstance(value, CellError):  # whoever read the cell could tell already
        raise value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) >= LARGEST:
            raise _too_long()
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise CellError(f"holds the number {value}", "give finite numbers, or leave them out", RULE)
        return float(value)
    return _nested(value, left)


def whole(text: str) -> str:
    """A text of Python's own kind.

    Raises:
        CellError: it holds half of a character.
    """
    try:
        return as_text(text)
    except CellError as error:
        raise CellError(error.found, error.advice, "hold whole characters") from None


def unboxed(value: Any) -> Any:
    """An array as what Python has for it, mostly a list; any other value as it is."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def _nested(value: object, left: int) -> Any:
    if not isinstance(value, Mapping | list | tuple):
        raise CellError(f"holds a value of type {quoted(type(value).__name__)}", "write it as text", RULE)
    if not left:
        raise _too_deep()
    if not isinstance(value, Mapping):
        return [plain(one, left - 1) for one in value]
    if odd := [key for key in value if not isinstance(key, str)]:
        raise CellError(f"holds a key of type {quoted(type(odd[0]).__name__)}", "make keys texts", RULE)
    return {whole(key): plain(one, left - 1) for key, one in value.items() if one is not None}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise CellError(f"has an object with the key {quoted(twice)} twice", "remove one", "have each key once")
    return found


def _whole_number(digits: str) -> int:
    if len(digits) > DIGITS:
        raise _too_long()
    return int(digits)


def _constant(name: str) -> Any:
    raise CellError(f"holds the number {name}", "give finite numbers, or leave them out", RULE)


def _too_long() -> CellError:
    return CellError("holds a whole number of thousands of digits", "put it into quotes", RULE)


def _too_deep() -> CellError:
    return CellError(
        "is nested deeper", "write what is within as text", f"hold at most {DEEPEST} lists and objects in each other"
    )
