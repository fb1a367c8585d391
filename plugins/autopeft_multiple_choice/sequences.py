"""Lays the tokens of several sequences per row side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopeft import Field

if TYPE_CHECKING:
    from collections.abc import Mapping


def side_by_side(
    columns: Mapping[str, np.ndarray], offsets: np.ndarray, many: int, pad_token_id: int
) -> dict[str, Field]:
    """Fields of rows with `many` sequences each, each row as long as its longest: values `[places, many]`.

    Args:
        columns: `input_ids` and the tokenizer's other columns, of all sequences in a line, a row's sequences together.
        offsets: int64 `[rows · many + 1]`; sequence i is `offsets[i]:offsets[i + 1]`.
        many: sequences per row.
        pad_token_id: pads `input_ids`.

    Returns:
        These columns, and `attention_mask`, which is 1 where a sequence has a token.
    """
    lengths = np.diff(offsets)
    starts = np.concatenate([[0], np.cumsum(lengths.reshape(-1, many).max(axis=1))])
    sequence = np.repeat(np.arange(len(lengths)), lengths)  # of each token
    within = np.arange(len(sequence)) - offsets[sequence]
    place = starts[sequence // many] + within

    def laid(values: np.ndarray, filler: int) -> np.ndarray:
        found = np.full((int(starts[-1]), many), filler, values.dtype)
        found[place, sequence % many] = values
        return found

    padding = {name: pad_token_id if name == "input_ids" else 0 for name in columns}
    fields = {name: Field(laid(values, padding[name]), starts, padding[name]) for name, values in columns.items()}
    return {**fields, "attention_mask": Field(laid(np.ones(len(sequence), np.int8), 0), starts)}
