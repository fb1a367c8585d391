"""Finds the columns of texts to read and of texts to write, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft_seq2seq.translations import Translations

TRANSLATION = "translation"
"""A column of texts in several languages, as in data sets on the Hugging Face hub."""

TEXTS = (Column("source"), Column("target", given=False))

PAIRS = (
    ("source", "target"),
    ("document", "summary"),
    ("article", "highlights"),
    ("text", "summary"),
    ("question", "answer"),
)
"""Pairs of columns: what is read, and what is written; the first pair that a table has is taken."""


def translated(reader: Translations) -> tuple[Column, ...]:
    """The columns of a table with a column of texts in several languages.

    Args:
        reader: of its cells.
    """
    return (
        Column("source", "translations", read=reader.source, of=TRANSLATION),
        Column("target", "translations", given=False, read=reader.target, of=TRANSLATION),
    )


def recognised(names: Sequence[str]) -> tuple[dict[str, str], str]:
    """The columns of a table, by key, and a sentence for the user; empty if no pair fits.

    Args:
        names: of the table's columns.
    """
    if TRANSLATION in names:
        return {TRANSLATION: TRANSLATION}, f"The rows are read as texts with translations, from `{TRANSLATION}`."
    for source, target in PAIRS:
        if source in names and target in names:
            told = f"The rows are read as texts, from `{source}`, with what is written for them, from `{target}`."
            return {"source": source, "target": target}, told
    return {}, ""
