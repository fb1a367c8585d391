"""Exact match and F1 of answers, as SQuAD scores them (Rajpurkar et al. 2016, arXiv:1606.05250)."""

from __future__ import annotations

import functools
import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from autopeft import Metric, text_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

KEPT = 2**16
"""How many scores are cached: a report asks for each of them hundreds of times."""


class Truth(NamedTuple):
    """The truth of a row: the text that it asks about, and the accepted answers; without any, there is no answer."""

    context: str
    texts: tuple[str, ...]


def exact_match(answer: str, texts: Sequence[str]) -> float:
    """1 if the answer is an accepted one, as SQuAD compares them, or if it is "" and there is no answer; else 0."""
    return _best("squad_exact_match", answer, texts)


def f1(answer: str, texts: Sequence[str]) -> float:
    """The F1 of the words that the answer shares with the nearest accepted answer."""
    return _best("token_f1", answer, texts)


def _best(name: str, answer: str, texts: Sequence[str]) -> float:
    if not answer or not texts:  # an answer of only articles is an answer, though SQuAD compares it as none
        return float(not answer and not texts)
    of_row = text_scores()[name].of_row
    assert of_row
    return of_row(answer, texts)


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
"""How much an answer is like the accepted ones, from 0 to 1."""

METRICS = {name: Metric(partial(_score, name), partial(_of_written, name)) for name in ALIKE}
"""The metrics by name, the default first."""
