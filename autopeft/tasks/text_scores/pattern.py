"""How many answers match a regular expression."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING

import regex

from autopeft.common.exceptions import SpecError, in_a_line, quoted
from autopeft.tasks.text_scores.score import mean_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.tasks.text_scores.score import TextScore

SECONDS = 5.0
"""The most that one answer may take: some patterns would take years."""

LONGEST = 10_000
"""Most characters of a pattern."""

MOST = 10**6
"""The largest product of the least counts of repetitions: `regex` writes them out, which takes memory."""

LEAST = re.compile(r"\{(\d+)")


@functools.lru_cache(64)
def matching(pattern: str) -> TextScore:
    """The share of answers that match a pattern of Python's `re` as a whole; white space around them does not count.

    To look for a form anywhere, write `(?s).*form.*`. The references do not matter.

    Raises:
        SpecError: the pattern breaks a rule. The score itself raises it if the pattern takes too long on an answer.
    """
    rule = "`matches:` must be followed by a regular expression of Python"
    if not pattern or len(pattern) > LONGEST:
        raise SpecError(
            f"{rule}, of 1 to {LONGEST:,} characters, but got {len(pattern):,}; write one such as `matches:yes|no`."
        )
    least = math.prod(max(1, min(MOST + 1, int(count[:10]))) for count in LEAST.findall(pattern))
    if least > MOST:
        raise SpecError(
            f"{rule}, whose least counts of repetitions multiply to {MOST:,} at most, but got {quoted(pattern)}; "
            "repeat less."
        )
    try:
        re.compile(pattern)  # refuses what only `regex` knows, such as recursion, which may take all the memory
        compiled = regex.compile(pattern)
    except Exception as error:  # both may raise anything
        raise SpecError(f"{rule}, but got {quoted(pattern)}: {in_a_line(error)}; correct it.") from error

    def of_row(answer: str, references: Sequence[str]) -> float:
        try:
            return float(compiled.fullmatch(answer.strip(), timeout=SECONDS) is not None)
        except TimeoutError:
            raise SpecError(
                f"{rule} that takes at most {SECONDS:g} s on an answer, but {quoted(pattern)} took longer on one of "
                f"{len(answer):,} characters; write it without repetitions within repetitions, such as `(a+)+`."
            ) from None

    return mean_of(of_row)
