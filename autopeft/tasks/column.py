"""The columns that a kind of task reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Column:
    """A column that a row needs.

    Attributes:
        key: its key in [data], where the user names the column of the table; by default the key itself.
        holds: in a word: "text"; "label", which is kept as text; "number"; "image"; or what `read` makes, such as
            "words".
        given: whether prediction asks for it too; else it is what the rows teach.
        optional: it is read only where [data] names it.
        blank: whether cells may be empty; they are "" then, also for `read`.
        read: makes something else of a cell than a text, such as a tuple of words, or raises `CellError`. What it makes
            is of Python's own kinds, equal for equal cells, and JSON can hold it; `read` takes its JSON too. Default:
            by what the column holds.
        of: key of another column, from whose cells in the table this one is read too. Default: it has cells of its own.
    """

    key: str
    holds: str = "text"
    given: bool = True
    optional: bool = False
    blank: bool = False
    read: Callable[[object], Any] | None = None
    of: str = ""
