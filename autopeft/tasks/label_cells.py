"""Reads labels from a cell: a list, a text with a delimiter between the labels, or a cell of a label's own column."""

from __future__ import annotations

import json
from typing import Any

from autopeft.common.exceptions import quoted

YES, NO = "1", "0"
"""What the cells of a label's own column become."""

FLAGS = {"1": YES, "0": NO, "true": YES, "false": NO, "1.0": YES, "0.0": NO}

HEAP = (list, tuple, set, frozenset)


def read_labels(value: object, delimiter: str) -> tuple[str, ...]:
    """The labels of a row, sorted, each once; an empty text or an empty list has none.

    Args:
        value: the cell: a list of labels, such a list as JSON, or a text.
        delimiter: stands between the labels of a text; white space around it is not part of them.

    Raises:
        CellError: the cell is none of these, or a label is empty or not a single value.
    """
    from autopeft.data.cells import CellError

    try:
        labels = {_label(one) for one in _parts(value, delimiter)}
    except CellError as error:
        if value is error:  # the cell could not be read in the first place
            raise
        rule = f"be a list of labels, or a text with {quoted(delimiter)} between them"
        raise CellError(error.found, "repair it, or name another `delimiter` in [task]", rule) from None
    return tuple(sorted(labels))


def _parts(value: object, delimiter: str) -> list[Any]:
    from autopeft.data.cells import CellError, as_text

    if isinstance(value, HEAP) or type(value).__name__ == "ndarray":
        heap: Any = value
        return list(heap)
    text = as_text(value).strip()
    if text.startswith("["):
        try:
            return list(json.loads(text))
        except (ValueError, RecursionError):
            raise CellError("begins with [ but is not a JSON list") from None
    return [part for part in text.split(delimiter) if part.strip()]


def _label(value: object) -> str:
    from autopeft.data.cells import CellError, as_text, is_missing

    text = "" if is_missing(value) else as_text(value).strip()
    if not text:
        raise CellError("holds an empty label")
    return text


def read_flag(value: object) -> str:
    """Whether a row has a label, from the cell in the label's own column: "1" or "0".

    Raises:
        CellError: it is neither 0 nor 1, true nor false.
    """
    from autopeft.data.cells import CellError, as_text

    text = as_text(value).strip()
    found = FLAGS.get(text.lower())
    if found is None:
        raise CellError(f"is {quoted(text)}", "write 1 where the row has the label and 0 where not", "be 0 or 1")
    return found
