"""Reads the cells of a row: its words with a tag each, or its text with labelled spans."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from autopeft import CellError, as_text

WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]|\w+|[^\w\s]")
"""A word of a text: a run of letters and digits, one sign, or one character of a script without spaces."""

WORDS = ("be a list of words", "give a list, or the words with spaces between them")
OF_PYTHON = re.compile(r"""\[(['"]).*['"]\]""", re.DOTALL)
"""A list of texts as Python or numpy prints it."""

SPANS = (
    "be a list of spans",
    'give a list such as [{"start": 0, "end": 4, "label": "PER"}]; `end` is the character behind the last one',
)


def words(cell: object) -> tuple[str, ...]:
    """A list of words, or of tags: as it is, as JSON, or as a text with white space between them.

    Raises:
        CellError: it is none of these, or holds an empty word.
    """
    found = _listed(cell, WORDS)
    if isinstance(cell, str) and found and not any(isinstance(one, str) for one in found):
        found = cell  # such as "[54]", which is JSON by chance
    if isinstance(found, str) and OF_PYTHON.fullmatch(found.strip()):
        raise _printed()
    return _filled(found)


def tags(cell: object) -> tuple[str, ...]:
    """The tags of a row's words, in the same forms as words; they have no white space in them.

    Raises:
        CellError: it is none of these, or a tag has white space in it.
    """
    listed = _listed(cell, WORDS)
    if isinstance(listed, str) and re.fullmatch(r"\[.*\]", listed.strip(), re.DOTALL):
        raise _printed()
    found = _filled(listed)
    if odd := next((tag for tag in found if len(tag.split()) > 1), None):
        raise CellError(f"has the tag {odd!r}", "use _ instead", "have tags without white space in them")
    return found


def _printed() -> CellError:
    rule, advice = WORDS
    return CellError(
        "is a list as Python or numpy prints it", f"{advice}, or JSON, with double quotes and commas", rule
    )


def _filled(found: Any) -> tuple[str, ...]:
    """The words of a list, or of a text with white space between them."""
    made = tuple(as_text(word) for word in (found.split() if isinstance(found, str) else found))
    if not made or not all(word.strip() for word in made):
        rule, advice = WORDS
        raise CellError("holds no word" if not made else "holds an empty word", advice, rule)
    return made


def spans(cell: object) -> tuple[tuple[int, int, str], ...]:
    """The start, end and label of each span, in order; from mappings or lists of these three, or their JSON.

    Raises:
        CellError: it is none of these, or two spans overlap.
    """
    rule, advice = SPANS
    given = _listed(cell, SPANS)
    if isinstance(given, str):
        raise CellError("is a text", advice, rule)
    found = sorted(_span(span) for span in given)
    for (_, end, label), (start, _, other) in itertools.pairwise(found):
        if start < end:
            raise CellError(
                f"has spans that overlap, {label!r} up to {end} and {other!r} from {start}",
                "keep one of them, or make the other a row of its own",
                "have spans that do not overlap",
            )
    return tuple(found)


def _span(span: object) -> tuple[int, int, str]:
    rule, advice = SPANS
    if isinstance(span, Mapping) and {"start", "end", "label"} <= {*span}:
        span = [span["start"], span["end"], span["label"]]
    if not isinstance(span, Sequence) or isinstance(span, str | bytes) or len(span) != 3:
        raise CellError("has a span without `start`, `end` and `label`", advice, rule)
    start, end, label = span
    if (
        not all(isinstance(place, int) and not isinstance(place, bool) for place in (start, end))
        or not 0 <= start < end
    ):
        raise CellError(f"has a span from {str(start)[:20]} to {str(end)[:20]}", advice, rule)
    if len((name := as_text(label)).split()) != 1:
        raise CellError(f"has the label {name!r}", advice, "have labels of one word, with _ instead of spaces")
    return start, end, name


def _listed(cell: object, said: tuple[str, str]) -> Any:
    """A cell as a list; a text that is not a JSON list stays a text."""
    rule, advice = said
    if isinstance(cell, str):
        if not cell.lstrip().startswith("["):
            return cell
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    if hasattr(cell, "tolist"):  # of numpy
        cell = cell.tolist()
    if isinstance(cell, CellError):
        raise cell
    if isinstance(cell, Mapping) or not isinstance(cell, Sequence) or isinstance(cell, bytes):
        raise CellError(f"is a value of type {type(cell).__name__}", advice, rule)
    return cell


def placed(row: Mapping[Any, Any]) -> tuple[str, list[tuple[int, int]]]:
    """The text of a row, and where each of its words begins and ends in it."""
    if "tokens" not in row:
        return row["text"], [found.span() for found in WORD.finditer(row["text"])]
    places, end = [], 0
    for word in row["tokens"]:
        places.append((end, end + len(word)))
        end += len(word) + 1
    return " ".join(row["tokens"]), places
