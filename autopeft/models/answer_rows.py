"""Rows of prompts and answers as tokens, with the places whose states predict each token of an answer."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from autopeft.common.truncation import BOTH, TAIL
from autopeft.models.token_rows import TokenRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    Spans = Sequence[tuple[int, int]]

AT_ONCE = 100
"""Rows held as lists of Python numbers at a time."""


class AnswerRows(NamedTuple):
    """Rows as tokens, and the tokens of their answers.

    Attributes:
        tokens: of prompts and answers.
        at: the place before each token of an answer, whose state predicts it; all rows one after another, int64.
        labels: these tokens, int64.
        offsets: where each row's part of both begins, int64 `[rows + 1]`.
    """

    tokens: TokenRows
    at: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray


def answer_rows(
    tokenizer: Any,
    texts: Sequence[str],
    answers: Sequence[Spans],
    most: int,
    truncation: str,
    plain: Sequence[bool],
    typed: Sequence[Spans] = (),
) -> AnswerRows:
    """Tokenise whole texts, and find the tokens of their answers.

    A token that covers the end of a prompt and the beginning of an answer belongs to the answer. Nothing predicts the
    first token of a row, so it is never trained on.

    Args:
        tokenizer: a fast one of transformers.
        texts: each a prompt and its answers.
        answers: for each text, the spans of characters of its answers.
        most: tokens of a row, at most.
        truncation: "head", "tail" or "both", what is kept of a longer one.
        plain: for each text, whether it lacks the tokenizer's special tokens. Then the usual ones are added before it,
            and an end token after it if it ends with an answer; special tokens in it are read as text.
        typed: for each text with special tokens, the spans that look like one but were typed by a person: they are
            text, and no token crosses their bounds. Default: none.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids, at, labels, counts, whole = [], [], [], list[int](), list[int]()
    for start in range(0, len(texts), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        found = _encodings(tokenizer, texts[some], plain[some], typed[some] or [()] * len(texts[some]))
        for encoding, text, spans, bare in zip(found, texts[some], answers[some], plain[some], strict=True):
            row, places = _row(encoding, text, spans, end if bare else [], plain=bare)
            kept = _kept(len(row), most, truncation)
            whole.append(len(row))
            ids.append(row[kept])
            moved = np.cumsum(_mask(kept, len(row))) - 1  # place of each token of the whole row in the part kept
            there = np.isin(places, kept) & np.isin(places - 1, kept) & (moved[places] > 0)
            at.append(moved[places[there]] - 1)
            labels.append(row[places[there]])
            counts.append(int(there.sum()))
    lengths = [len(row) for row in ids]
    columns = {"input_ids": np.concatenate(ids).astype(np.int32)}
    tokens = TokenRows(columns, np.cumsum([0, *lengths]), np.asarray(whole, np.int64))
    return AnswerRows(
        tokens,
        np.concatenate(at).astype(np.int64),
        np.concatenate(labels).astype(np.int64),
        np.cumsum([0, *counts]),
    )


def _encodings(tokenizer: Any, texts: Sequence[str], plain: Sequence[bool], typed: Sequence[Spans]) -> list[Any]:
    """Each text's tokens, as `ids`, `offsets` and `special_tokens_mask`."""
    found: list[Any] = [None] * len(texts)
    for bare in {*plain}:
        rows = [row for row, own in enumerate(plain) if own == bare]
        few = [texts[row] for row in rows]
        made = tokenizer(few, add_special_tokens=bare, split_special_tokens=bare, verbose=False).encodings
        for row, encoding in zip(rows, made, strict=True):
            found[row] = _Pieces.of(tokenizer, texts[row], typed[row]) if typed[row] and not bare else encoding
    return found


class _Pieces(NamedTuple):
    """The tokens of a text that was read in pieces, in the form that the tokenizers library has for a whole text."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    special_tokens_mask: list[int]

    @classmethod
    def of(cls, tokenizer: Any, text: str, typed: Spans) -> _Pieces:
        """Read a text with special tokens, some of which are text."""
        made = cls([], [], [])
        for number, (start, end) in enumerate(pairwise([0, *chain.from_iterable(typed), len(text)])):
            options = {"add_special_tokens": False, "split_special_tokens": number % 2 == 1, "verbose": False}
            (piece,) = tokenizer([text[start:end]], **options).encodings
            made.ids.extend(piece.ids)
            made.offsets.extend((start + first, start + last) for first, last in piece.offsets)
            made.special_tokens_mask.extend(piece.special_tokens_mask)
        return made


def _row(encoding: Any, text: str, spans: Spans, end: list[int], *, plain: bool) -> tuple[np.ndarray, np.ndarray]:
    """A row's tokens, and the places of its answers' tokens."""
    ids = list(encoding.ids)
    offsets = list(encoding.offsets)
    if plain:  # some tokenizers also add tokens after a text: an end token is added below
        while ids and encoding.special_tokens_mask[len(ids) - 1] and offsets[len(ids) - 1] == (0, 0):
            ids.pop()
    places = [
        place
        for place, (first, last) in enumerate(offsets[: len(ids)])
        if last > first and any(last > a and first < b for a, b in spans)
    ]
    if end and spans and spans[-1][1] == len(text):
        places.append(len(ids))
        ids += end
    return np.asarray(ids, np.int64), np.asarray([place for place in places if place], np.int64)


def _kept(length: int, most: int, truncation: str) -> np.ndarray:
    """The places of a row that are kept."""
    if length <= most:
        return np.arange(length)
    tail = {TAIL: most, BOTH: most // 2}.get(truncation, 0)
    return np.asarray([*chain(range(most - tail), range(length - tail, length))])


def _mask(kept: np.ndarray, length: int) -> np.ndarray:
    found = np.zeros(length, np.int64)
    found[kept] = 1
    return found
