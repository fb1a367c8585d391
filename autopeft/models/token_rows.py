"""Rows as tokens, and which characters each token stands for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS = ("input_ids", "token_type_ids")
SPANS, TEXT_OF = "spans", "text_of"


@dataclass(frozen=True)
class TokenRows:
    """Rows as tokens: for each column one int32 array of all rows' values, row i at `offsets[i]:offsets[i + 1]`.

    Attributes:
        columns: `input_ids`, and `token_type_ids` if the tokenizer has them.
        offsets: int64 `[rows + 1]`.
        whole: tokens of each row before it was cut, int64 `[rows]`.
        spans: which characters each token stands for, from the first to after the last, int32 `[tokens, 2]`; -1 for
            special tokens and for tokens of only white space. None if not asked for.
        text_of: which of the row's texts each token belongs to, int8 `[tokens]`; -1 for special tokens. None likewise.
        row_of: if rows have several windows, the row of each window, int64 `[windows]`; else None.
        answered_at: for rows in a template, the token at which they are answered, int64 `[rows]`; else None.
    """

    columns: Mapping[str, np.ndarray]
    offsets: np.ndarray
    whole: np.ndarray
    spans: np.ndarray | None = None
    text_of: np.ndarray | None = None
    row_of: np.ndarray | None = None
    answered_at: np.ndarray | None = None


def spans_of(encoding: Any, texts: Sequence[str]) -> list[tuple[int, int]]:
    """The characters of each token of a row, without the white space around them."""
    found = []
    for (start, end), place in zip(encoding.offsets, encoding.sequence_ids, strict=True):
        text = "" if place is None else texts[place][start:end]
        bare = text.strip()
        begin = start + len(text) - len(text.lstrip())
        found.append((begin, begin + len(bare)) if bare else (-1, -1))
    return found


def text_of(encoding: Any) -> list[int]:
    """Which of the row's texts each token belongs to; -1 for special tokens."""
    return [-1 if place is None else place for place in encoding.sequence_ids]


def joined(parts: Sequence[Any], whole: np.ndarray | None) -> TokenRows:
    """Join rows that the tokenizer returned in parts."""
    lengths = [len(row) for found in parts for row in found["input_ids"]]
    columns = {
        name: np.fromiter(chain.from_iterable(row for found in parts for row in found[name]), np.int32)
        for name in COLUMNS
        if name in parts[0]
    }
    spans = np.asarray([span for found in parts for row in found[SPANS] for span in row], np.int32).reshape(-1, 2)
    text_of = np.fromiter((place for found in parts for row in found[TEXT_OF] for place in row), np.int8)
    offsets = np.cumsum([0, *lengths])
    return TokenRows(columns, offsets, np.diff(offsets) if whole is None else whole, spans, text_of)
