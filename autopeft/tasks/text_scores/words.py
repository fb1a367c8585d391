"""Whether a text is the reference, and how many words the two share."""

from __future__ import annotations

import re
import string
from collections import Counter

from autopeft.tasks.text_scores.score import best

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def same(answer: str, reference: str) -> float:
    """Whether the texts are the same apart from white space around them."""
    return float(answer.strip() == reference.strip())


def normal(text: str) -> str:
    """A text in lower case, without ASCII punctuation, English articles and needless white space.

    SQuAD compares texts like this (Rajpurkar et al. 2016, arXiv:1606.05250).
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split())


def same_normal(answer: str, reference: str) -> float:
    """Whether the texts are the same after `normal`."""
    return float(normal(answer) == normal(reference))


def shared(answer: str, reference: str) -> float:
    """The F1 of the words, split at white space, that the texts share after `normal`.

    In a script without spaces a text is one word. If a text has no words left, it is 1 if the other has none either.
    """
    first, second = normal(answer).split(), normal(reference).split()
    if not first or not second:
        return float(first == second)
    found = sum((Counter(first) & Counter(second)).values())
    return 2 * found / (len(first) + len(second))


SCORES = {"exact_match": best(same), "token_f1": best(shared), "squad_exact_match": best(same_normal)}
