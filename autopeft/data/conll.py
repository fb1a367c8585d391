"""Files of tagged words, one per line, with an empty line between sentences: CoNLL-2002, -2003, Universal NER."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from autopeft.common.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FORMATS = ("conll", "iob2", "iob", "bio")
WORDS, TAGS = "tokens", "tags"
"""Names of the columns that hold the words and their tags; other columns are `column_1`, `column_2`, …"""

START = "-DOCSTART-"
KEY = re.compile(r"#\s*\w[\w ]*=")
"""The beginning of a comment of CoNLL-U that names something, such as `# text = …`."""


def sentences(
    text: str, path: Path, note: Callable[[str], None]
) -> tuple[list[str], Callable[[Sequence[str]], pd.DataFrame]]:
    """The names of the columns, and a function that gives the cells of some of them: a list for each sentence.

    Fields are separated by tabs if a line has any, else by spaces. The words are the first field and the tags the last.
    If the first field counts the words, as in Universal NER, the words are the second field and the tags the third. A
    note says which ones were read.

    Args:
        text: of the file.
        path: for errors.
        note: called with what was assumed.

    Raises:
        DataError: a line has not as many fields as the first.
    """
    rows: list[list[list[str]]] = []
    lines: list[int] = []
    width, ended = _width(text), True
    for number, line in enumerate(text.split("\n"), 1):
        fields = _fields(line)
        if not any(fields) or fields[0] == START:
            ended = True
            continue
        if ended and "\t" not in line and line.startswith("#") and (KEY.match(line) or len(fields) != width):
            continue  # a comment, as in CoNLL-U; if "#" is a word, its line has as many fields as all others
        if len(fields) != width:
            raise DataError(
                f"{path}, line {number}: every line must have {width} fields like the first, but this one has "
                f"{len(fields)}; put one word and its tag in a line, and an empty line between two sentences."
            )
        if ended:
            rows.append([])
            lines.append(number)
            ended = False
        rows[-1].append(fields)
    counted = bool(rows) and all(row[place][0] == str(place + 1) for row in rows for place in range(len(row)))
    places = {f"column_{place + 1}": place for place in range(width)}
    if width > 1:
        named = {WORDS: 1, TAGS: 2} if counted and width > 2 else {WORDS: 0, TAGS: width - 1}
        places |= named
        where = [f"column {place + 1} for the {name}" for name, place in named.items()]
        note(f"{path.name} has {width} columns; it is read with {where[0]} and {where[1]}.")
    index = pd.Index(lines, name="row")

    def cells(columns: Sequence[str]) -> pd.DataFrame:
        found = {name: [[fields[places[name]] for fields in row] for row in rows] for name in columns}
        return pd.DataFrame({name: pd.Series(lists, index=index, dtype=object) for name, lists in found.items()})

    return list(places), cells


def _fields(line: str) -> list[str]:
    return [field.strip() for field in (line.split("\t") if "\t" in line else line.split())]


def _width(text: str) -> int:
    """Number of fields of the first line that is surely a word's; 0 where there is none."""
    lines = (line for line in text.split("\n") if line.strip() and not line.startswith(("#", START)))
    return len(_fields(next(lines, "")))
