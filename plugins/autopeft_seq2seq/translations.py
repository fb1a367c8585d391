"""Reads cells that hold a text in several languages, such as {"en": "a fox", "de": "ein Fuchs"}."""

from __future__ import annotations

import json
from collections.abc import Mapping

from autopeft import CellError, as_text, quoted

RULE = "hold a text in each of two languages"
ADVICE = 'write such as {"en": "…", "de": "…"}'
BOTH = "name both as `source_language` and `target_language` in [task]"


class Translations:
    """Reads a column of such cells: the text in the language to translate from, and in the one to translate to.

    The first cell that has both decides which keys these are for all cells.

    Args:
        source: the language to translate from, or a code that begins with it, such as "en_XX"; empty: the first of
            the cell's two keys.
        target: likewise, the second.

    Attributes:
        keys: both keys, once a cell was read; empty before.
    """

    def __init__(self, source: str = "", target: str = "") -> None:
        self._asked = source, target
        self.keys: tuple[str, ...] = ()

    def source(self, cell: object) -> str:
        """The text to translate.

        Raises:
            CellError: there is none, or it is not known which.
        """
        return self._text(cell, 0)

    def target(self, cell: object) -> str:
        """Its translation.

        Raises:
            CellError: there is none, or it is not known which.
        """
        return self._text(cell, 1)

    def _text(self, cell: object, place: int) -> str:
        found = _texts(cell)
        keys = self.keys or _chosen([*found], self._asked)
        self.keys = keys
        if found.get(keys[place]) is None:
            raise CellError(f"has none in {quoted(keys[place])}", "fill it or remove the row", RULE)
        return as_text(found[keys[place]])


def _texts(cell: object) -> dict[str, object]:
    """A cell's text in each language, which may be None.

    Raises:
        CellError: it is not such a cell.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise CellError("is a text that is not JSON", ADVICE, RULE) from None
    if not isinstance(cell, Mapping):
        raise CellError("is not a mapping of languages", ADVICE, RULE)
    return {str(key): text for key, text in cell.items()}


def _chosen(keys: list[str], asked: tuple[str, str]) -> tuple[str, str]:
    """The keys of both languages.

    If a cell has two keys, and one key fits no language and one language, with a script or a region, fits no key, these
    two belong together, such as "es" and "spa_Latn".

    Raises:
        CellError: it is not clear which keys they are.
    """
    told = [_fitting(keys, language) for language in asked]
    for place, language in enumerate(asked):
        other = told[1 - place]
        free = not language or ("_" in language and other)
        if told[place] is None and free and len(keys) == 2:
            told[place] = next(key for key in (keys if place == 0 else keys[::-1]) if key != other)
    first, second = told
    if first is None or second is None or first == second:
        has = f"has the languages {', '.join(map(quoted, keys))}" if keys else "has no language"
        missing = [quoted(language) for language, key in zip(asked, told, strict=True) if language and key is None]
        rule = f"hold a text in {' and '.join(missing)}, as [task] says" if missing else RULE
        raise CellError(has, "use the cells' names for the languages in [task]" if missing else BOTH, rule)
    return first, second


def _fitting(keys: list[str], language: str) -> str | None:
    """The key of a language: its own name, or else the longest key that its name begins with."""
    if not language or language in keys:
        return language or None
    return max((key for key in keys if key and language.startswith(key)), key=len, default=None)
