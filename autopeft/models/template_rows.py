"""Rows of texts in a template: in a row that is too long the texts are cut, and the template stays whole."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft.models.token_rows import TokenRows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Places = list[tuple[int, int]]
    Keeping = Callable[[Places, int], Places]

AT_ONCE = 100
"""Rows held as lists of Python numbers at a time."""


@dataclass(frozen=True)
class Template:
    """A template around texts.

    Attributes:
        words: the words before each of the `texts`, and after the last: one more than there are texts.
        texts: the texts of all rows, a column for each place, in their order.
    """

    words: tuple[str, ...]
    texts: tuple[Sequence[str], ...] = ()

    def of(self, row: int) -> tuple[str, list[tuple[int, int]]]:
        """A row's whole text, and the span of characters of each of its texts."""
        whole, places = self.words[0], []
        for column, behind in zip(self.texts, self.words[1:], strict=True):
            places.append((len(whole), len(whole) + len(column[row])))
            whole += column[row] + behind
        return whole, places


def filled(
    tokenizer: Any, before: Template, behind: Template, middle: Sequence[int], keeping: Keeping, *, closed: bool
) -> TokenRows:
    """The tokens of each row: special tokens, `before`, the tokens `middle`, `behind`, special tokens.

    `before` and `behind` are each tokenised as a whole, so that words become tokens as in any text.

    Args:
        tokenizer: a fast one of transformers.
        before: with at least one column of texts, unless `behind` has one.
        behind: likewise.
        middle: ids, such as the token that masks a word.
        keeping: returns the spans of a row that are kept, given the spans of its texts and its number of tokens.
        closed: whether the tokenizer's special tokens after a text are added at the end.

    Returns:
        Rows with `answered_at`: the place of the last token of `middle`, or if it is empty of the one before, int64
        `[rows]`.
    """
    first, last, types = _marks(tokenizer)
    last = last if closed else []
    count = len((before.texts or behind.texts)[0])
    ids, lengths, whole, places = [], list[int](), list[int](), list[int]()
    for start in range(0, count, AT_ONCE):
        some = range(start, min(count, start + AT_ONCE))
        parts = [_read(tokenizer, template, some) for template in (before, behind)]
        for (left, left_texts), (right, right_texts) in zip(*parts, strict=True):
            row = [*first, *left, *middle, *right, *last]
            shifts = len(first), len(first) + len(left) + len(middle)
            texts = [(a + shifts[0], b + shifts[0]) for a, b in left_texts]
            texts += [(a + shifts[1], b + shifts[1]) for a, b in right_texts]
            kept = keeping(texts, len(row))
            place = shifts[1] - 1
            places.append(sum(min(b, place) - min(a, place) for a, b in kept))
            whole.append(len(row))
            ids.append(np.asarray([*chain.from_iterable(row[a:b] for a, b in kept)], np.int32))
            lengths.append(len(ids[-1]))
    columns = {"input_ids": np.concatenate(ids)}
    if types is not None:  # one sequence has one type throughout
        columns["token_type_ids"] = np.full(sum(lengths), types, np.int32)
    return TokenRows(
        columns,
        np.cumsum([0, *lengths]),
        np.asarray(whole, np.int64),
        answered_at=np.asarray(places, np.int64),
    )


def _read(tokenizer: Any, template: Template, rows: range) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """For each row the tokens of a template, and the span of each text's tokens."""
    texts = [template.of(row) for row in rows]
    encodings = tokenizer([whole for whole, _ in texts], add_special_tokens=False, verbose=False).encodings
    return [
        (list(encoding.ids), [_within(encoding.offsets, whole, place) for place in places])
        for encoding, (whole, places) in zip(encodings, texts, strict=True)
    ]


def _within(offsets: Sequence[tuple[int, int]], whole: str, place: tuple[int, int]) -> tuple[int, int]:
    """The span of the tokens that cover only characters of this place; white space before them does not count.

    A token that also covers a part of the template belongs to the template, and stays.
    """
    start, end = place
    found = []
    for index, (a, b) in enumerate(offsets):
        begin = a + len(whole[a:b]) - len(whole[a:b].lstrip())
        if (begin if begin < b else a) >= start and b <= end and b > a:
            found.append(index)
    if found:
        return found[0], found[-1] + 1
    behind = next((index for index, (a, _) in enumerate(offsets) if a >= end), len(offsets))
    return behind, behind


def _marks(tokenizer: Any) -> tuple[list[int], list[int], int | None]:
    """The tokenizer's special tokens before and after a text, and the type of the text's tokens if it has types."""
    found = tokenizer("a", return_attention_mask=False)
    (encoding,) = found.encodings
    own = encoding.special_tokens_mask
    ids, bare = list(encoding.ids), [place for place, mark in enumerate(own) if not mark]
    types = found["token_type_ids"][bare[0]] if "token_type_ids" in found and bare else None
    if not bare:
        return ids, [], types
    return ids[: bare[0]], ids[bare[-1] + 1 :], types
