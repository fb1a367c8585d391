"""Whether a text ends in the same number as its reference, as GSM8K asks (Cobbe et al. 2021, arXiv:2110.14168)."""

from __future__ import annotations

import re
from decimal import Decimal

from autopeft.tasks.text_scores.score import best

NUMBER = re.compile(
    r"(?:(?<![\w.)%])(?P<sign>[-\u2212\u2013\uff0d+])[$€£¥₹]?)?"
    r"(?:(?P<whole>\d[\d,]*)(?P<part>\.\d+)?|(?<![\w.])(?P<only>\.\d+))"
    r"(?P<power>[eE][+-]?\d{1,3}(?!\w))?"
)
MARKED = re.compile(r"####\s*[$€£¥₹]?" + NUMBER.pattern)


def number(text: str) -> Decimal | None:
    """The result that a text gives: the number behind the first `####` that has one, else the last number of the text.

    Numbers are in digits of any script, in English notation: `-1,234.50`, `$1,000`, `50%`, which is 50, `.5`, `6e23`,
    and 12,34,567 as in India; a full stop behind a number is not part of it. The last number of a fraction is the one
    below.

    Returns:
        The exact value; None if the text has no number.
    """
    found = MARKED.search(text)
    if found is None:
        for found in NUMBER.finditer(text):  # noqa: B007 - the last one counts
            pass
    return None if found is None else _value(found)


def _value(found: re.Match[str]) -> Decimal:
    groups = (found["whole"] or "0").rstrip(",").split(",")
    whole = "".join(groups) if _grouped([*map(len, groups)]) else groups[-1]
    negative = found["sign"] not in (None, "+") and (len(groups) == 1 or len(whole) > len(groups[-1]))
    return Decimal(f"{'-' * negative}{whole}{found['part'] or found['only'] or ''}{found['power'] or ''}")


def _grouped(digits: list[int]) -> bool:
    """Whether groups of that many digits are one number, in thousands or as in India, and not a list of numbers."""
    first, *middle, last = [*digits] if len(digits) > 1 else (1, 3)
    return first <= 3 and last == 3 and {*middle} in (set(), {2}, {3})


def same_number(answer: str, reference: str) -> float:
    """Whether both give the same number; false if the reference has none."""
    true = number(reference)
    return float(true is not None and number(answer) == true)


SCORES = {"numeric_match": best(same_number)}
