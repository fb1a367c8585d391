"""Tags of words, and the entities that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OUTSIDE = "O"
"""The tag of a word that is in no entity."""

PREFIXES = ("B", "I", "E", "S")


class Entity(NamedTuple):
    """Its first word, the word behind its last, and its type."""

    start: int
    end: int
    type: str


def parts(tag: str) -> tuple[str, str]:
    """The prefix of a tag and its type; a tag without a prefix is a type with the prefix "I"."""
    prefix, dash, kind = tag.partition("-")
    if dash and kind and (prefix in PREFIXES or prefix in ("L", "U")):
        return {"L": "E", "U": "S"}.get(prefix, prefix), kind
    return "I", tag


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities of a row, by the rule of CoNLL-2000's conlleval (Tjong Kim Sang & Buchholz 2000).

    A "B-" or "S-" begins one, and so does any tag whose type differs from that of the tag before; "E-" and "S-" end
    one. So an "I-" that follows nothing of its type begins one. BIO, BIOES (BILOU) and tags without a prefix are read
    by the same rule.
    """
    found: list[Entity] = []
    begin, current = 0, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = ("", "") if tag == OUTSIDE else parts(tag)
        if current and (kind != current or prefix in ("B", "S")):
            found.append(Entity(begin, place, current))
            current = ""
        if kind and not current:
            begin, current = place, kind
        if kind and prefix in ("E", "S"):
            found.append(Entity(begin, place + 1, kind))
            current = ""
    return found


def strict_entities(tags: Sequence[str]) -> list[Entity]:
    """Only entities that begin with "B-" or "S-", as BIO and BIOES define them, or whose tags have no prefix."""
    found = ((entity, tags[entity.start]) for entity in entities(tags))
    return [entity for entity, tag in found if parts(tag)[0] in ("B", "S") or tag == entity.type]


def tags_of(found: Iterable[Entity], words: int) -> list[str]:
    """BIO tags of a row with `words` words."""
    tags = [OUTSIDE] * words
    for start, end, kind in found:
        tags[start] = f"B-{kind}"
        tags[start + 1 : end] = [f"I-{kind}"] * (end - start - 1)
    return tags


def types_of(tags: Iterable[str]) -> set[str]:
    """The types of entities among tags."""
    return {parts(tag)[1] for tag in tags if tag != OUTSIDE}
