"""ROUGE (Lin 2004): how many words, pairs of words, or words in their order a text shares with its reference.

These are F measures as rouge-score 0.1.2 computes them with its stemmer on: English words of more than three letters
are compared without their suffixes (Porter). Of several references the best counts. The differences to that library:

- Its tokens are runs of a to z and 0 to 9, so "café" becomes "caf", and a text in another script has no words and
  scores 0. Here letters, marks and digits of every script count. In scripts without spaces between words, such as
  Chinese and Thai, each character is a word. A text in ASCII has the same words in both.
- Here two texts with the same words score 1. There they score 0 if they have no words at all, or no pairs for
  `rouge_2`.
- `rouge_l` and `rouge_lsum` read only the first `LONGEST` words of a text, the latter also only the first `LINES` lines
  with words.

`rouge_lsum` treats each line as a sentence, as that library does: a summary must have a line for each sentence. For a
summary of one line it is much the same as `rouge_l`.
"""

from __future__ import annotations

import functools
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import regex

from autopeft.tasks.text_scores import library
from autopeft.tasks.text_scores.score import best
from autopeft.tasks.text_scores.subsequence import length, places
from autopeft.tasks.text_scores.words import same

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONGEST, LINES = 10_000, 1000
"""Most words of a text whose order counts, and most lines of a summary: the time grows with the square."""

SHORTEST = 4
"""Fewest letters of a word that is stemmed."""

ALONE = "".join(
    rf"\p{{scx={script}}}" for script in ("Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar")
)
"""Scripts without spaces between words, with letters that they share, such as 々 and ー."""

WORD = regex.compile(rf"(?V1)[[\p{{L}}\p{{Nd}}]&&[{ALONE}]]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{Nd}}]--[{ALONE}]]+")
KEPT = 2**16


class Words:
    """The tokenizer, as rouge-score takes one."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, stemmed."""
        return [_stem(word) for word in WORD.findall(text.lower())]


@functools.cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer  # rouge-score needs nltk, and stems with it

    return PorterStemmer()


@functools.lru_cache(KEPT)
def _stem(word: str) -> str:
    return str(_stemmer().stem(word)) if len(word) >= SHORTEST and word.isascii() else word


@functools.cache
def _scorer(kind: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=Words())


def _of_runs(kind: str, answer: str, reference: str) -> float:
    return float(_scorer(kind).score(reference, answer)[kind].fmeasure)


def _of_order(answer: str, reference: str) -> float:
    given, true = (Words().tokenize(text)[:LONGEST] for text in (answer, reference))
    return _f1(length(true, given), len(given), len(true))


def _of_lines(answer: str, reference: str) -> float:
    """Section 3.2 of Lin 2004: for each line of the reference, the words that any line of the answer has in order.

    As in ROUGE 1.5.5, no word counts more often than it occurs in either text.
    """
    given, true = (_lines(text) for text in (answer, reference))
    left, needed = (Counter(word for line in lines for word in line) for lines in (given, true))
    total, hits = (left.total(), needed.total()), 0
    found: dict[tuple[str, ...], list[int]] = {}
    for line in map(tuple, true):
        if line not in found:
            known = frozenset(line)
            others = {_against(known, other) for other in given}
            found[line] = sorted(set[int]().union(*(places(line, other) for other in others)))
        for word in (line[place] for place in found[line]):
            if left[word] > 0 and needed[word] > 0:
                hits, left[word], needed[word] = hits + 1, left[word] - 1, needed[word] - 1
    return _f1(hits, *total)


def _lines(text: str) -> list[list[str]]:
    """The words of each line that has any, up to `LONGEST` words in all."""
    found, room = list[list[str]](), LONGEST
    for line in text.split("\n"):
        if words := Words().tokenize(line)[:room]:
            found.append(words)
            room -= len(words)
        if not room or len(found) == LINES:
            break
    return found


def _against(known: frozenset[str], line: Sequence[str]) -> tuple[str | None, ...]:
    """A line with None for each run of words that the other line lacks: many lines are then the same."""
    found: list[str | None] = []
    for word in line:
        if word in known:
            found.append(word)
        elif found and found[-1] is not None:
            found.append(None)
    return tuple(found)


def _f1(hits: int, given: int, true: int) -> float:
    return 2 * hits / (given + true) if hits else 0.0


def _same(answer: str, reference: str) -> bool:
    given, true = (Words().tokenize(text) for text in (answer, reference))
    return given == true and bool(given or same(answer, reference))


def _alike(name: str, answer: str, reference: str) -> float:
    library.require(name)
    return MEASURES[name](answer, reference) or float(_same(answer, reference))


MEASURES: dict[str, Callable[[str, str], float]] = {
    "rouge_1": partial(_of_runs, "rouge1"),
    "rouge_2": partial(_of_runs, "rouge2"),
    "rouge_l": _of_order,
    "rouge_lsum": _of_lines,
}
SCORES = {name: best(partial(_alike, name)) for name in MEASURES}
