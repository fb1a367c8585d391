"""Finds the first token of each word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


def align(tokens: Any, places: Sequence[Sequence[tuple[int, int]]]) -> np.ndarray:
    """For each token that is the first of a word, that word and its characters.

    A token belongs to the word that its first character is in. In a row that was cut, a word whose first tokens are
    gone has no token, though others of it may be left: its tag would be learnt from a rest of the word.

    Args:
        tokens: of all rows, with their `spans`.
        places: where each word of each row begins and ends in its text.

    Returns:
        int32 `[tokens, 3]`: the word's position in its row, its first character and the one behind its last; -1 if a
        token is not the first of any word.
    """
    import numpy as np

    found = np.full((len(tokens.spans), 3), -1, np.int32)
    for row, words in enumerate(places):
        if not words:
            continue
        here = slice(*tokens.offsets[row : row + 2])
        cut = tokens.whole[row] > here.stop - here.start
        starts = tokens.spans[here, 0]
        begins = np.asarray([begin for begin, _ in words], np.int64)
        ends = np.asarray([end for _, end in words], np.int64)
        word = np.searchsorted(begins, starts, side="right") - 1
        inside = (word >= 0) & (starts >= 0) & (starts < ends[word])
        seen: set[int] = set()
        for place in np.flatnonzero(inside):
            index = int(word[place])
            if index not in seen and not (cut and starts[place] != begins[index]):
                found[here.start + place] = index, begins[index], ends[index]
            seen.add(index)
    return found
