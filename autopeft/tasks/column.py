"""The columns that a kind of task reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column that a row needs.

    Attributes:
        key: its key in [data], where the user names the column of the table; by default the key itself.
        holds: a text; a label, which is kept as text; a number; or an image.
        given: whether prediction asks for it too; else it is what the rows teach.
        optional: it is read only where [data] names it.
    """

    key: str
    holds: Literal["text", "label", "number", "image"] = "text"
    given: bool = True
    optional: bool = False
