"""Guess what a table is for: the kind of task that fits it best."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopeft.common.containment import guarded
from autopeft.common.exceptions import DataError, in_a_line, nearest, quoted
from autopeft.common.locate import locate
from autopeft.data.table import open_table, reading
from autopeft.tasks.profile import ColumnProfile, TableProfile, profile
from autopeft.tasks.registry import find_task, task_kinds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from autopeft.data.table import Table
    from autopeft.tasks.fit import Fit

LOOKED_AT = 5_000
"""How many rows from the beginning of a table are looked at."""

SECONDS = 10.0
"""How long a kind of task may take to say whether it fits."""


@dataclass(frozen=True)
class Guess:
    """How a study would read a table.

    Attributes:
        kind: of task.
        columns: names in the table by their keys in [data].
        options: settings under [task].
        why: what speaks for it, in a sentence.
        table: what its columns hold.
        notes: what was assumed while the table was read, a sentence each.
    """

    kind: str
    columns: dict[str, str]
    options: dict[str, Any]
    why: str
    table: TableProfile
    notes: tuple[str, ...] = ()

    def column(self, key: str) -> ColumnProfile | None:
        """What the column of that key holds."""
        return self.table.column(self.columns.get(key, ""))


def named_columns(text: str | None, label: str | None) -> dict[str, str]:
    """Columns that the user named, by their keys in [data]."""
    return {key: name for key, name in (("text", text), ("label", label)) if name is not None}


def guess_study(
    train: str, kind: str | None = None, named: Mapping[str, str] | None = None, block: Collection[str] = ()
) -> Guess:
    """Find out what a table is for.

    Args:
        train: a reference to the table, as in [data]; relative paths start at the current folder.
        kind: of task, if the user named one.
        named: columns that the user named, by their keys.
        block: entry points of plugins to leave out.

    Raises:
        DataError: the table cannot be read, lacks a named column, or fits no kind.
        SpecError: there is no such kind of task.
    """
    notes: list[str] = []
    table = open_table(locate(train, Path.cwd()), note=notes.append)
    for key, name in (named or {}).items():
        if name not in table.names:
            raise DataError(f"{table.called} has no column {quoted(name)}; {nearest(name, table.names)} See `--{key}`.")
    seen = profile(_cells(table), named)
    if not seen.rows:
        raise DataError(f"{table.called} must hold at least one row below its header, but it has none.")
    blocked = tuple(block)
    kinds = {kind: find_task(kind, blocked)} if kind else task_kinds(blocked)
    fits = {name: found for name, task in kinds.items() if (found := _asked(task, seen, notes))}
    if not fits:
        raise _nothing_fits(table, seen, kind, find_task(kind, blocked).inputs if kind else ())
    best = max(fits, key=lambda name: fits[name].score)
    found = fits[best]
    columns = {**{str(key): str(name) for key, name in found.columns.items()}, **(named or {})}
    return Guess(best, columns, dict(found.options), found.why, seen, tuple(notes))


def _cells(table: Table) -> dict[str, list[Any]]:
    """The first cells of each column whose name occurs once."""
    names = [name for name in dict.fromkeys(table.names) if list(table.names).count(name) == 1]
    cells: dict[str, list[Any]] = {name: [] for name in names}
    with reading(table.called):
        for block in table.blocks(names):
            for name in names:
                cells[name] += itertools.islice(block[name], LOOKED_AT - len(cells[name]))
            if names and len(cells[names[0]]) >= LOOKED_AT:
                break
    return cells


def _asked(task: Any, seen: TableProfile, notes: list[str]) -> Fit | None:
    """What a kind of task answers; None if its code fails, with a note."""
    try:
        with guarded(SECONDS):
            found: Fit | None = task.fits(seen)
    except Exception as error:  # a plugin's code may raise anything, and another kind may fit
        notes.append(f"{task.kind} could not say whether it fits: {in_a_line(error)}.")
        return None
    names = {column.name for column in seen.columns}
    return found if found and found.score > 0 and {*found.columns.values()} <= names else None


def _nothing_fits(table: Table, seen: TableProfile, kind: str | None, inputs: Collection[str]) -> DataError:
    shown = "; ".join(f"`{column.name}` holds {column.said}" for column in seen.columns[:8])
    more = f"; and {len(seen.columns) - 8} more columns" if len(seen.columns) > 8 else ""
    if kind:
        return DataError(
            f"{table.called} must have columns for {kind} ({', '.join(inputs)} and what to learn), but none "
            f"fit: {shown}{more}. Name them with --text and --label, or in [data] of a study file."
        )
    return DataError(
        f"{table.called} must have columns that a kind of task fits, but none does: {shown}{more}. "
        "Name them with --text and --label, and the kind with --task (`autopeft tasks` lists the kinds)."
    )
