"""Exact match and F1 of answers, as SQuAD scores them (Rajpurkar et al. 2016, arXiv:1606.05250)."""

from __future__ import annotations

import functools
import json
import re
import string
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from autopeft import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
KEPT = 2**16
"""Scores that are remembered: a report asks for each of them some hundred times."""


class Truth(NamedTuple):
    """What is true of a row: the text it asks about, and the answers that count, of which none is no answer."""

    context: str
    texts: tuple[str, ...]


def normal(text: str) -> str:
    """In lower case, without punctuation, English articles and needless white space."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split())


def exact_match(answer: str, texts: Sequence[str]) -> float:
    """1 where the answer is one of those that count, up to `normal`; where there is none to find, if it is ""."""
    return _best(answer, texts, lambda one, other: float(one == other))


def f1(answer: str, texts: Sequence[str]) -> float:
    """The F1 of the words that the answer shares with the one of those that count that is nearest to it."""
    return _best(answer, texts, _overlap)


def _best(answer: str, texts: Sequence[str], alike: Callable[[str, str], float]) -> float:
    if not answer or not texts:
        return float(not answer and not texts)
    given = normal(answer)
    return max(alike(given, normal(text)) for text in texts)


def _overlap(one: str, other: str) -> float:
    """Of two normal texts; where either has no word left, whether both have none."""
    first, second = one.split(), other.split()
    if not first or not second:
        return float(first == second)
    shared = sum((Counter(first) & Counter(second)).values())
    return 2 * shared / (len(first) + len(second))


def written(texts: Iterable[str]) -> str:
    """The answers that count, or the one that was given, as they are kept in a file: JSON, `[]` for none."""
    return json.dumps(list(texts), ensure_ascii=False)


def _score(name: str, answers: Sequence[str], truths: Sequence[Truth]) -> float:
    """The mean over rows; answers are texts, "" for none."""
    alike = ALIKE[name]
    return sum(alike(answer, truth.texts) for answer, truth in zip(answers, truths, strict=True)) / len(truths)


@functools.lru_cache(KEPT)
def _of_cells(name: str, answer: str, truth: str) -> float:
    given = json.loads(answer)
    return ALIKE[name](given[0] if given else "", json.loads(truth))


def _of_written(name: str, answers: Sequence[str], truths: Sequence[str]) -> float:
    return sum(_of_cells(name, answer, truth) for answer, truth in zip(answers, truths, strict=True)) / len(truths)


ALIKE = {"f1": f1, "exact_match": exact_match}
"""How much an answer is like those that count, from 0 to 1."""

METRICS = {name: Metric(partial(_score, name), partial(_of_written, name)) for name in ALIKE}
"""The default first."""
