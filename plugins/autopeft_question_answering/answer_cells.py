"""Reads cells that hold the answers to a question, in the forms in which people keep them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autopeft import CellError, as_text

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN = -1
"""The start of an answer if it was not given."""

LONGEST = 2**24
"""Most characters of a context: float32 can hold their positions exactly."""

RULE = 'hold answers in SQuAD\'s form, {"text": ["…"], "answer_start": [0]}'
ADVICE = (
    "give that, as JSON in a table of texts, with empty lists if there is no answer, or name a column of plain "
    "answers as `answer` in [data]"
)

Answers = tuple[tuple[str, int], ...]
"""The accepted answers, each with the character of the context where it starts, or `UNKNOWN`."""


def read_answers(value: object) -> Answers:
    """A cell in SQuAD's form, or a result of this function; either may be JSON.

    Raises:
        CellError: it holds something else.
    """
    given: Any = _plain(value)
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise _error("is a text that is not JSON") from None
    if isinstance(given, Mapping):
        return _of_lists(_plain(given.get("text")), _plain(given.get("answer_start")))
    if not isinstance(given, list | tuple):
        raise _error("holds something else")
    return tuple(map(_one, given))


def _of_lists(texts: Any, starts: Any) -> Answers:
    """Pairs of texts and starts; a single one need not be in a list."""
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list | tuple):
        raise _error("has no list `text`")
    if starts is None:
        return tuple((_text(text), UNKNOWN) for text in texts)
    starts = starts if isinstance(starts, list | tuple) else [starts]
    if len(texts) != len(starts):
        raise _error(f"has {len(texts)} in `text` but {len(starts)} in `answer_start`", "give each answer one start")
    return tuple((_text(text), _start(start)) for text, start in zip(texts, starts, strict=True))


def _one(given: Any) -> tuple[str, int]:
    """One answer from a list: a mapping, or a pair of its text and its start."""
    given = _plain(given)
    if isinstance(given, Mapping):
        start = given.get("answer_start")
        return _text(given.get("text")), UNKNOWN if start is None else _start(start)
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise _error("has a list of something other than answers")
    return _text(given[0]), UNKNOWN if given[1] == UNKNOWN else _start(given[1])


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise _error("has an answer that is not a text")
    text = as_text(given)
    if not text.strip():
        raise _error("has an empty answer", "use empty lists for no answer")
    return text


def _start(given: Any) -> int:
    whole = isinstance(given, int | float) and not isinstance(given, bool) and float(given).is_integer()
    if not whole or given < 0:
        raise _error("has a start that is not a whole number from 0 on", "count the characters before the answer")
    return int(given)


def read_start(value: object) -> int | str:
    """A cell that says where its row's answer starts; "" if the cell is empty.

    Raises:
        CellError: it is not a whole number from 0 on.
    """
    text = as_text(value).strip()
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise CellError(
            "is something else",
            "count the characters before the answer, or leave the cell empty to use the first place where it occurs",
            "be a whole number from 0 on",
        )
    return int(text) if text else ""


def read_answer(value: object, *, unanswerable: bool = False) -> str:
    """A cell that is an answer; "" for no answer, if that is allowed.

    Raises:
        CellError: it is not a text, or is empty although each question must have an answer.
    """
    text = as_text(value)
    if text.strip():
        return text
    if not unanswerable:
        raise CellError(
            "is empty",
            "fill it or remove the row; if such questions have no answer, set `unanswerable = true` in [task]",
            "hold an answer",
        )
    return ""


def read_context(value: object) -> str:
    """A cell that is a text to find answers in.

    Raises:
        CellError: it is not a text, or is too long for the positions of answers.
    """
    text = as_text(value)
    if len(text) > LONGEST:
        raise CellError(
            f"has {len(text):,}", "split it into several rows", f"be a text of at most {LONGEST:,} characters"
        )
    return text


def together(texts: Sequence[str], starts: Sequence[int | str]) -> list[Answers]:
    """One answer for each row, or none if its text is empty, in the form of `read_answers`."""
    return [
        ((text, start if isinstance(start, int) else UNKNOWN),) if text else ()
        for text, start in zip(texts, starts, strict=True)
    ]


def _plain(value: Any) -> Any:
    """Arrays as lists, with Python's own numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


def _error(found: str, advice: str = ADVICE) -> CellError:
    return CellError(found, advice, RULE)
