"""The columns that a kind of task reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Column:
    """A column that a row needs.

    Attributes:
        key: its key in [data], where the user names the column of the table; by default the key itself.
        holds: a text; or a label, which is kept as text.
        given: whether prediction asks for it too; else it is what the rows teach.
    """

    key: str
    holds: Literal["text", "label"] = "text"
    given: bool = True
