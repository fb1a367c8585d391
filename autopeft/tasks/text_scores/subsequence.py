"""The longest common subsequence of two texts, computed for all words of the first at once, word by word of the second.

A column of the table of dynamic programming is kept as the bits of one number: bit i is 0 where the subsequence with
the first i + 1 words is longer than with the first i (Crochemore et al. 2001, "A fast and practical bit-vector
algorithm for the longest common subsequence problem"; in the form of Hyyrö 2004).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence


def length(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """How many words the longest common subsequence has."""
    (last,) = deque(_columns(first, second), maxlen=1)
    return len(first) - last.bit_count()


def places(first: Sequence[Hashable], second: Sequence[Hashable]) -> set[int]:
    """Where the words of a longest common subsequence stand in the first text.

    If there are several, it is the one that rouge-score 0.1.2 finds. That looks from the end: where words differ, it
    goes back in the second text if that keeps more words than going back in the first.
    """
    columns = [*_columns(first, second)]
    found, row, place = set(), len(first), len(second)
    while row and place:
        if first[row - 1] == second[place - 1]:
            row, place = row - 1, place - 1
            found.add(row)
        elif columns[place] >> (row - 1) & 1:
            row -= 1
        else:
            place -= 1
    return found


def _columns(first: Sequence[Hashable], second: Sequence[Hashable]) -> Iterator[int]:
    """The columns of the table: one more than the second text has words."""
    at: dict[Hashable, int] = {}
    for place, word in enumerate(first):
        at[word] = at.get(word, 0) | 1 << place
    column = every = (1 << len(first)) - 1
    yield column
    for word in second:
        if matches := column & at.get(word, 0):
            column = ((column + matches) | (column - matches)) & every
        yield column
