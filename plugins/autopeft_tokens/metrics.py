"""Scores of tags, by the entities that they stand for; rows are in written form: tags with spaces between them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from autopeft_tokens.tags import OUTSIDE, entities, strict_entities

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autopeft_tokens.tags import Entity

Counts = dict[str, tuple[int, int, int]]
"""By type: how many entities were found rightly, how many were found, and how many there are."""


def split(answer: str, words: int) -> list[str]:
    """The tags of a row; words without a tag, which were cut off, count as outside."""
    tags = answer.split()[:words]
    return [*tags, *[OUTSIDE] * (words - len(tags))]


def counts(
    answers: Sequence[str], truths: Sequence[str], find: Callable[[Sequence[str]], list[Entity]] = entities
) -> Counts:
    """How many entities of each type are right, that is, have the same words and the same type."""
    right, found, there = Counter[str](), Counter[str](), Counter[str]()
    for answer, truth in zip(answers, truths, strict=True):
        true = truth.split()
        given, real = {*find(split(answer, len(true)))}, {*find(true)}
        right.update(entity.type for entity in given & real)
        found.update(entity.type for entity in given)
        there.update(entity.type for entity in real)
    return {kind: (right[kind], found[kind], there[kind]) for kind in sorted({*found, *there})}


def f1(right: int, found: int, there: int) -> float:
    """The harmonic mean of precision and recall; 0 if there is nothing to find and nothing was found."""
    return 2 * right / (found + there) if found + there else 0.0


def _over(above: int, below: int) -> float:
    return above / below if below else 0.0


def score(name: str, answers: Sequence[str], truths: Sequence[str]) -> float:
    """A metric of `METRICS`."""
    if name == "tag_accuracy":
        pairs = [pair for answer, truth in zip(answers, truths, strict=True) for pair in _words(answer, truth)]
        return _over(sum(given == true for given, true in pairs), len(pairs))
    by_type = counts(answers, truths, strict_entities if name.endswith("strict") else entities)
    right, found, there = (sum(column) for column in zip(*by_type.values(), strict=True)) if by_type else (0, 0, 0)
    if name == "entity_precision":
        return _over(right, found)
    if name == "entity_recall":
        return _over(right, there)
    if name == "entity_f1_macro":
        return sum(f1(*one) for one in by_type.values()) / len(by_type) if by_type else 0.0
    return f1(right, found, there)


def _words(answer: str, truth: str) -> zip[tuple[str, str]]:
    true = truth.split()
    return zip(split(answer, len(true)), true, strict=True)


METRICS = {
    name: partial(score, name)
    for name in (
        "entity_f1",
        "entity_f1_strict",
        "entity_f1_macro",
        "entity_precision",
        "entity_recall",
        "tag_accuracy",
    )
}
"""By name, the default first. They are over all entities together, except `entity_f1_macro`, the mean over their types,
and `tag_accuracy`, which is over words."""
