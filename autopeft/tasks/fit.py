"""How well a kind of task fits a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.tasks.profile import TableProfile

SURE, LIKELY, POSSIBLE, SLIGHT = 0.9, 0.6, 0.3, 0.1
"""How well a kind fits: the names and contents of columns leave little doubt; the contents fit; they may fit; only if
nothing else fits."""


@dataclass(frozen=True)
class Fit:
    """How a kind of task would read a table.

    Attributes:
        columns: the table's names for the task's columns, by their keys in [data].
        score: from 0 to 1; the kind with the highest score is taken.
        why: what speaks for it, in a sentence.
        options: settings under [task] that go with it.
    """

    columns: Mapping[str, str]
    score: float
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)


class TableFit:
    """The hook with which `autopeft init` asks a kind of task whether a table is for it."""

    def recognised(self, names: Sequence[str]) -> tuple[dict[str, str], str]:
        """Columns of a table, by key, to read if [data] names none, and a sentence that says so. Default: none."""
        return {}, ""

    def fits(self, table: TableProfile) -> Fit | None:
        """How the kind would read a table. Default: with the columns that it recognises, if any.

        Args:
            table: what its columns hold; the kind must use those that the user named.
        """
        names, told = self.recognised([column.name for column in table.columns])
        found = [table.column(name) for name in names.values()]
        if not found or not {*table.named} <= {*names}:
            return None
        plain = all(column is None or column.holds not in ("objects", "mapping") for column in found)
        return Fit(names, SURE if not plain else LIKELY if len(found) > 1 else SLIGHT, told)
