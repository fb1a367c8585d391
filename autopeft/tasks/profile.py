"""Finds out from the cells of a table what its columns hold, so that a kind of task can say whether it fits."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from autopeft.data.cells import is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Holds = Literal["text", "label", "number", "name", "texts", "objects", "mapping", "image", "nothing"]
"""Free texts; few values that repeat; numbers; values that name a row or are too rare to be learnt, such as ids, dates
and addresses; lists of texts; lists of mappings; mappings; images; only empty cells."""

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
NAMING = re.compile(r"[\w.+-]+@[\w.-]+|https?://\S+|\d{4}-\d\d-\d\d([T ].*)?|[0-9a-f]{8}-[0-9a-f-]{27}", re.IGNORECASE)
ID = re.compile(
    r"(^|_|\b)(id|idx|index|uuid|guid|key|number|nr|no|date|time|timestamp|created|url|email)($|_|\b)", re.I
)

MOST_LABELS, ROWS_OF_LABEL = 300, 4
"""Most different values of a label, and fewest rows per value on average."""

LABEL_WORDS = 5
"""Most words of a label on average."""

WITHOUT_SPACES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]{3}")
"""A piece of a text in a script without spaces: Chinese, Japanese; Thai, Lao, Burmese, Khmer. A word has about two."""

SHORT = 2
"""A text has more words than this on average: what is shorter names something."""

NUMBER_LABELS = 12
"""A column with at most this many different whole numbers may be taken for labels."""

TEXT_NAMES = (
    "text", "message", "body", "content", "sentence", "comment", "review", "description", "document", "utterance",
    "tweet", "post", "question", "query", "title", "subject", "input", "prompt", "abstract", "headline", "verbatim",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "class", "category", "categories", "target", "sentiment", "queue", "intent", "topic", "topics",
    "tag", "tags", "emotion", "polarity", "type", "department", "priority", "stance", "genre", "outcome", "y",
)  # fmt: skip
PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text1", "text2"),
    ("text_a", "text_b"), ("text", "text_pair"), ("query", "passage"), ("query", "document"), ("question", "sentence"),
)  # fmt: skip
"""Names of two columns of texts that are read together."""

NUMBER_NAMES = ("score", "rating", "stars", "price", "value", "similarity", "grade", "minutes", "hours", "amount")


@dataclass(frozen=True)
class ColumnProfile:
    """What a column holds.

    Attributes:
        name: in the table.
        holds: see `Holds`.
        filled: share of the cells that hold something.
        counts: how often each value occurs, the most frequent first; for texts, labels, numbers and names.
        words: mean number of words of a cell, if it holds texts.
        delimiter: stands between several values of a cell, if many cells have more than one; else empty.
        whole: whether all numbers are whole.
    """

    name: str
    holds: Holds
    filled: float = 0.0
    counts: Mapping[str, int] = field(default_factory=dict)
    words: float = 0.0
    delimiter: str = ""
    whole: bool = False

    @property
    def said(self) -> str:
        """What it holds, in words for the user."""
        match self.holds:
            case "text":
                return f"free text, {self.words:.0f} words on average"
            case "label":
                shown = ", ".join(f"{value} ({count})" for value, count in [*self.counts.items()][:4])
                return f"{len(self.counts)} values: {shown}{', …' * (len(self.counts) > 4)}"
            case "number":
                return "whole numbers" if self.whole else "numbers"
            case "name":
                return "values that hardly repeat"
            case "texts":
                return "lists of texts"
            case "objects":
                return "lists of messages or other objects"
            case "mapping":
                return "objects"
            case "image":
                return "images"
        return "nothing"


@dataclass(frozen=True)
class TableProfile:
    """What a table holds.

    Attributes:
        columns: its columns, in order.
        rows: how many rows were looked at.
        named: columns that the user named, by their keys in [data]; they are used whatever they hold.
    """

    columns: tuple[ColumnProfile, ...]
    rows: int
    named: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str) -> ColumnProfile | None:
        """The column of that name."""
        return next((one for one in self.columns if one.name == name), None)

    def among(self, *names: str) -> ColumnProfile | None:
        """The first column whose name, in lower case, is one of these."""
        by_name = {one.name.lower(): one for one in reversed(self.columns)}
        return next((by_name[name] for name in names if name in by_name), None)

    def text(self, key: str = "text", without: Iterable[str] = ()) -> ColumnProfile | None:
        """The column that the user named, else the free text with the likeliest name, else the longest."""
        return self._best(key, TEXT_NAMES, without, lambda one: one.holds == "text", lambda one: one.words)

    def label(self, key: str = "label", without: Iterable[str] = ()) -> ColumnProfile | None:
        """The column that the user named, else of those with few values the likeliest name, else the fewest values."""
        return self._best(key, LABEL_NAMES, without, lambda one: one.holds == "label", lambda one: -len(one.counts))

    def number(self, key: str = "label", without: Iterable[str] = ()) -> ColumnProfile | None:
        """The column that the user named, else the numbers with the likeliest name, else those with the most values."""
        names = (*NUMBER_NAMES, *LABEL_NAMES)
        return self._best(key, names, without, lambda one: one.holds == "number", lambda one: len(one.counts))

    def pair(self) -> tuple[ColumnProfile, ColumnProfile] | None:
        """Two columns of texts that are read together: those that the user named, else by their names."""
        if "text_pair" in self.named:
            first, second = self.text(), self.column(self.named["text_pair"])
        else:
            names = next((names for names in PAIRS if all(map(self.among, names))), None)
            first, second = map(self.among, names) if names else (None, None)
        if not first or not second or self.named.get("text", first.name) != first.name:
            return None
        return first, second

    def _best(
        self,
        key: str,
        names: Sequence[str],
        without: Iterable[str],
        fits: Callable[[ColumnProfile], bool],
        rank: Callable[[ColumnProfile], float],
    ) -> ColumnProfile | None:
        if key in self.named:
            return self.column(self.named[key])
        taken = {*without, *self.named.values()}
        found = [one for one in self.columns if one.name not in taken and fits(one)]
        place = {name: position for position, name in enumerate(reversed(names), 1)}
        return max(found, key=lambda one: (place.get(one.name.lower(), 0), one.filled, rank(one)), default=None)


def profile(cells: Mapping[str, Sequence[Any]], named: Mapping[str, str] | None = None) -> TableProfile:
    """Look at the columns of a table.

    Args:
        cells: of each column, by its name.
        named: see `TableProfile`.
    """
    rows = max(map(len, cells.values()), default=0)
    return TableProfile(tuple(_column(name, values) for name, values in cells.items()), rows, dict(named or {}))


def _column(name: str, cells: Sequence[Any]) -> ColumnProfile:
    values = [value for value in map(_parsed, cells) if not _is_nothing(value)]
    if not values:
        return ColumnProfile(name, "nothing")
    filled, first = len(values) / len(cells), values[0]
    if isinstance(first, Mapping):
        return ColumnProfile(name, "image" if {"bytes", "path"} <= {*first} else "mapping", filled)
    if isinstance(first, bytes):
        return ColumnProfile(name, "image", filled)
    if isinstance(first, Sequence) and not isinstance(first, str):
        inner = next((one for value in values for one in value), "")
        return ColumnProfile(name, "objects" if isinstance(inner, Mapping) else "texts", filled)
    texts = [str(value) for value in values]
    counts = dict(Counter(texts).most_common())
    numbers = _numbers(values)
    if numbers is not None:
        whole = all(number.is_integer() for number in numbers)
        few = whole and len(counts) <= NUMBER_LABELS and len(counts) * ROWS_OF_LABEL <= len(values)
        names_rows = ID.search(name) or (whole and len(counts) == len(values))
        holds: Holds = "label" if few and len(counts) > 1 else "name" if names_rows else "number"
        return ColumnProfile(name, holds, filled, counts, 1.0, whole=whole)
    return _of_texts(name, filled, texts, counts)


def _of_texts(name: str, filled: float, texts: Sequence[str], counts: Mapping[str, int]) -> ColumnProfile:
    words = sum(map(_words, texts)) / len(texts)
    if sum(text.lower().endswith(IMAGE_ENDINGS) for text in texts) > len(texts) / 2 and words < LABEL_WORDS:
        return ColumnProfile(name, "image", filled, counts, words)
    if sum(bool(NAMING.fullmatch(text.strip())) for text in texts) > len(texts) / 2:
        return ColumnProfile(name, "name", filled, counts, words)
    few = len(counts) <= MOST_LABELS and len(counts) * ROWS_OF_LABEL <= len(texts) and words <= LABEL_WORDS
    delimiter = _delimiter(texts)
    if (few or delimiter) and len(counts) > 1:
        return ColumnProfile(name, "label", filled, counts, words, delimiter)
    return ColumnProfile(name, "text" if words > SHORT else "name", filled, counts, words)


def _words(text: str) -> int:
    """About how many words a text has; one in a script without spaces is counted by its length."""
    return sum(max(1, -(-len(WITHOUT_SPACES.findall(part)) // 2)) for part in text.split())


def _delimiter(texts: Sequence[str]) -> str:
    """What stands between several labels of a cell: then the parts are short and repeat often enough."""
    for mark in ("|", ";", ","):
        parts = [part.strip() for text in texts for part in text.split(mark)]
        several = sum(mark in text for text in texts)
        short = all(0 < _words(part) <= 3 for part in parts)
        if several >= len(texts) / 10 and short and len({*parts}) * ROWS_OF_LABEL <= len(texts):
            return mark
    return ""


def _numbers(values: Sequence[Any]) -> list[float] | None:
    """All values as numbers; None if one is not a number."""
    try:
        return [float(value) for value in values if not isinstance(value, bool)] or None
    except (TypeError, ValueError, OverflowError):
        return None


def _parsed(value: Any) -> Any:
    """The cell; if it is a list or an object in JSON, the value of that."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value.tolist() if hasattr(value, "tolist") and not isinstance(value, str) else value


def _is_nothing(value: Any) -> bool:
    return not value.strip() if isinstance(value, str) else is_missing(value)
