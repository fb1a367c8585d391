"""Values that JSON can hold, read from JSON text and from the cells of tables."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from autopeft import CellError, as_text, quoted

DEEPEST = 50
"""Most lists and mappings inside each other; Python's own limit depends on the caller."""

DIGITS = 4_000
"""Most digits of a whole number; Python reads and writes at most 4,300."""

LARGEST = 10**DIGITS

RULE = "hold what JSON can hold"


def from_json(text: str) -> Any:
    """The value of a JSON text, read strictly.

    Raises:
        CellError: it is not JSON, is nested too deep, holds NaN, Infinity or a number with too many digits, or an
            object has a key twice (Python's reader would keep only the last).
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
    """A value in Python's own types, as if read from its JSON: arrays and tuples are lists.

    Keys of mappings whose value is None are left out: parquet gives each mapping of a column the keys of all.

    Args:
        value: of a cell.
        left: how many more levels it may be nested.

    Raises:
        CellError: JSON cannot hold it.
    """
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "mM":  # times would become numbers
        value = value.tolist()
    if isinstance(value, CellError):  # the cell could not be read in the first place
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
    """A text as Python's `str`.

    Raises:
        CellError: it holds half a character.
    """
    try:
        return as_text(text)
    except CellError as error:
        raise CellError(error.found, error.advice, "hold whole characters") from None


def unboxed(value: Any) -> Any:
    """An array as a Python value, mostly a list; any other value as it is."""
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
        raise CellError(f"has an object with the key {quoted(twice)} twice", "remove one", "have each key only once")
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
        "is nested deeper", "write the inner values as text", f"nest lists and objects at most {DEEPEST} levels deep"
    )
