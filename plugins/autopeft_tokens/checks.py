"""Checks rows, finds the tags to choose from, and the strata for splitting rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import DataError, nearest
from autopeft_tokens.cells import placed
from autopeft_tokens.tags import OUTSIDE, Entity, parts, tags_of, types_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pandas as pd

FEWEST = 20
"""Fewest rows of a stratum: rarer types have none of their own."""


def rows(table: pd.DataFrame, source: str) -> None:
    """Make sure that every word has a tag, and that every span is within its text.

    Raises:
        DataError: that is not so; it names the first such row.
    """
    for name, row in zip(table.index, table.to_dict("records"), strict=True):
        if "tags" in row and len(row["tags"]) != len(row["tokens"]):
            raise DataError(
                f"{source}, row {name}: every word must have a tag, but there are {len(row['tokens'])} words and "
                f"{len(row['tags'])} tags; add or remove some."
            )
        for start, end, label in row.get("spans", ()):
            if end > len(row["text"]):
                raise DataError(
                    f"{source}, row {name}: every span must lie within its text of {len(row['text'])} characters, but "
                    f'"{label}" goes from {start} to {end}; count characters, not bytes, from 0 on.'
                )
        if not placed(row)[1]:
            raise DataError(f"{source}, row {name}: every row must have a word, but this one has none; remove it.")


def types(table: pd.DataFrame, source: str, metric: str) -> None:
    """Make sure that there are at least two tags to choose from, and that entities can be found by them.

    Raises:
        DataError: that is not so.
    """
    found = {tag for tags in _tags_by_row(table) for tag in tags}
    if metric != "tag_accuracy" and found and all(tag.lstrip("-").isdigit() for tag in found):
        raise DataError(
            f"{source}: tags must be names, with {OUTSIDE} for words in no entity, but all are whole numbers; give "
            'their names, or set `metric = "tag_accuracy"` in [validation], which asks for no entities.'
        )
    if len(found) < 2:
        raise DataError(
            f"{source}: there must be at least two tags, but every word has {min(found, default=OUTSIDE)}; label some "
            "words."
        )


def known(test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
    """Make sure that every type of the held-out rows occurs in the training rows.

    Raises:
        DataError: one does not; it names its first row.
    """
    taught = {kind for tags in _tags_by_row(train) for kind in types_of(tags)}
    for name, tags in zip(test.index, _tags_by_row(test), strict=True):
        if unknown := types_of(tags) - taught:
            kind = min(unknown)
            raise DataError(
                f'{source}, row {name}: the type "{kind}" does not occur in the training rows; {nearest(kind, taught)} '
                "Add training rows with it, or remove it."
            )


def told(train: pd.DataFrame) -> list[str]:
    """Sentences on how many spans begin or end inside a word, and how many touch none; empty if there are none."""
    if "spans" not in train:
        return []
    rows = [(placed(row)[1], row["spans"]) for row in train.to_dict("records")]
    inside = sum(_inside(span, places) for places, spans in rows for span in spans)
    beside = sum(not _touches(span, places) for places, spans in rows for span in spans)
    verb = "span begins or ends" if inside == 1 else "spans begin or end"
    touch = "spans touch" if beside > 1 else "span touches"
    return [
        *[f"{inside} {verb} inside a word; the whole words are taken."] * bool(inside),
        *[f"{beside} {touch} no word and taught nothing; check where they begin and end."] * bool(beside),
    ]


def _inside(span: tuple[int, int, str], places: Sequence[tuple[int, int]]) -> bool:
    start, end, _ = span
    return any(begin < start < stop or begin < end < stop for begin, stop in places)


def _touches(span: tuple[int, int, str], places: Sequence[tuple[int, int]]) -> bool:
    start, end, _ = span
    return any(begin < end and start < stop for begin, stop in places)


def rarest_types(table: pd.DataFrame) -> pd.Series[str] | None:
    """For each row its rarest type, of those that enough rows have; None if that does not divide the rows."""
    import pandas as pd

    found = pd.Series([types_of(tags) for tags in _tags_by_row(table)], index=table.index, dtype=object)
    counts = found.explode().value_counts()
    frequent = counts[counts >= FEWEST].sort_values()
    order = {kind: place for place, kind in enumerate(frequent.index)}
    rarest = found.map(lambda kinds: min((kind for kind in kinds if kind in order), key=lambda k: order[k], default=""))
    sizes = rarest.value_counts()
    small = sizes[sizes < FEWEST].index  # a type whose other rows have a rarer type
    rarest[rarest.isin(small)] = ""
    return rarest if rarest.nunique() > 1 and rarest.value_counts().min() >= FEWEST else None


def labels(train: pd.DataFrame, test: pd.DataFrame) -> tuple[str, ...]:
    """The tag of words in no entity, then the tags by type; a type with "B-" has both "B-" and "I-"."""
    found = {tag for table in (train, test) for tags in _tags_by_row(table) for tag in tags}
    found |= {f"I-{kind}" for prefix, kind in map(parts, found) if f"B-{kind}" in found}
    outside = [OUTSIDE] if OUTSIDE in found else []
    return (*outside, *sorted(found - {OUTSIDE}, key=lambda tag: (parts(tag)[1], tag)))


def truths(table: pd.DataFrame, words: Sequence[tuple[str, list[tuple[int, int]]]], names: Sequence[str]) -> np.ndarray:
    """The position of each word's tag, an int32 array for each row; zeros if the rows have no tags."""
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    found = np.empty(len(table), dtype=object)
    for place, (row, (_, places)) in enumerate(zip(table.to_dict("records"), words, strict=True)):
        if "tags" in row:
            found[place] = np.asarray([index[tag] for tag in row["tags"]], np.int32)
        elif "spans" in row:
            tags = tags_of(_entities(row["spans"], places), len(places))
            found[place] = np.asarray([index[tag] for tag in tags], np.int32)
        else:
            found[place] = np.zeros(len(places), np.int32)
    return found


def _entities(spans: Sequence[tuple[int, int, str]], places: Sequence[tuple[int, int]]) -> Iterator[Entity]:
    """The words that spans touch; if two spans touch the same word, the first has it."""
    free = 0
    for start, end, kind in spans:
        touched = [word for word, (begin, stop) in enumerate(places) if word >= free and begin < end and start < stop]
        if touched:
            free = touched[-1] + 1
            yield Entity(touched[0], free, kind)


def _tags_by_row(table: pd.DataFrame) -> Iterator[Sequence[str]]:
    """The tags that occur in each row, or that words in its spans may have; none for a cell that was not read."""
    if "tags" in table:
        yield from (tags or () for tags in table["tags"])
        return
    for spans in table["spans"]:
        yield [OUTSIDE, *(f"{prefix}-{kind}" for *_, kind in spans or () for prefix in ("B", "I"))]
