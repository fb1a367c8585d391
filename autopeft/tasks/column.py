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
        key: its key in [data], where the user names the column of the table; by default the column has this name.
        holds: in a word: "text"; "label", which is kept as text; "number"; "image"; or what `read` makes, such as
            "words".
        given: whether prediction needs it too; if not, it is what the rows teach.
        optional: whether it is read only if [data] names it.
        blank: whether cells may be empty; they are then "", also for `read`.
        read: turns a cell into something other than a text, such as a tuple of words, or raises `CellError`. The result
            is of built-in types that JSON can hold, and equal for equal cells; `read` takes its JSON too. Default: by
            what the column holds.
        of: key of another column whose cells in the table this one is read from. Default: it has its own cells.
    """

    key: str
    holds: str = "text"
    given: bool = True
    optional: bool = False
    blank: bool = False
    read: Callable[[object], Any] | None = None
    of: str = ""
