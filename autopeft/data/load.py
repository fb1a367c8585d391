"""Reads, checks, thins out and splits the rows of a study, before anything else looks at them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from autopeft.common.exceptions import DataError, SpecError, brief, nearest
from autopeft.common.free_memory import free_memory
from autopeft.common.locate import locate
from autopeft.common.units import format_bytes
from autopeft.data.cell_readers import fillable, readers, size
from autopeft.data.cells import Texts
from autopeft.data.missing import ADVICE, DROP, without_empty
from autopeft.data.picture import Picture
from autopeft.data.split import check_groups, hold_out, thin, together, without_repeats
from autopeft.data.table import nothing_in, open_table
from autopeft.study.sections import DataSection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from autopeft.common.params import ParamValue
    from autopeft.data.table import Table
    from autopeft.study.file import StudySpec


CELL = 64
"""Number of bytes that Python needs for a text besides its characters."""

COPIES = 4
"""How many times the rows are in memory at most: as read, shuffled, split, and written out for their digest."""

WORTH_SAYING = 0.05
"""A larger difference between the wanted and the actual share of held-out rows is worth a note."""


@dataclass(frozen=True)
class StudyData:
    """Rows to train on and rows held out.

    Attributes:
        train: the task's columns by their keys, and `group` if the study names one; all as text.
        test: the same.
        labels: the names that an answer chooses from.
        facts: other facts from the training rows that answers need.
        notes: what was assumed or left out, a sentence each.
        fingerprint: SHA-256 over both parts; equal for equal rows in equal order.
        dropped: number of rows left out for an empty cell.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    fingerprint: str
    facts: Mapping[str, ParamValue] = field(default_factory=dict)
    dropped: int = 0


class Rows(Protocol):
    """What reading rows needs from the kind of task; `tasks.Task` explains each part."""

    @property
    def columns(self) -> tuple[Any, ...]:
        """All columns that a row may have."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that prediction needs."""

    @property
    def taught_columns(self) -> tuple[str, ...]:
        """The columns that the model learns."""

    @property
    def group(self) -> str:
        """The column whose equal cells stay together."""

    @property
    def writes(self) -> bool:
        """Whether answers are texts, of which several may be right."""

    def gathered(self, rows: pd.DataFrame, source: str) -> pd.DataFrame:
        """What the model learns from rows, in the columns that the task works with."""

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Refuse training rows that no study can use."""

    def check_test(self, test: pd.DataFrame, train: pd.DataFrame, source: str) -> None:
        """Refuse held-out rows that need something the training rows do not teach."""

    def check_folds(self, train: pd.DataFrame, folds: int, source: str) -> list[str]:
        """Refuse too few rows for the folds."""

    def strata(self, rows: pd.DataFrame) -> pd.Series | None:
        """The values that keep their share in every part."""

    def labels(self, train: pd.DataFrame, test: pd.DataFrame) -> tuple[str, ...]:
        """The labels that an answer chooses from."""

    def facts_of(self, train: pd.DataFrame) -> dict[str, ParamValue]:
        """The facts from the training rows that answers need."""


def load_rows(spec: StudySpec, task: Rows) -> StudyData:
    """Read and split the rows that a study file names.

    The held-out rows are chosen first. Training rows whose inputs repeat a held-out row's, or an earlier training
    row's, are then left out, so that no model is scored on rows that it was trained on. For a task that writes, a
    prompt may have several answers: training rows that repeat another's prompt stay, on one side of every split.

    Raises:
        DataError: in one sentence, with the file, the row or the key, and what to do.
    """
    section, notes = spec.data, list[str]()
    inputs = task.inputs
    wanted = table_columns(section, task)
    check_keys(section.columns, {**wanted, **{column.of: "" for column in task.columns if column.of}})
    if group := section.group or (task.group and section.column(task.group)):
        wanted["group"] = group

    table, dropped = _opened(spec, section.train, section.train_split, section.sheet, wanted, task, notes)
    source = table.called
    train = _read(table, wanted, task, lambda rows: thin(rows, task.strata(rows), section.max_rows, spec.seed))
    if train.empty:
        raise DataError(
            f"{source}: `max_rows` in [data] must leave room for whole groups, but {section.max_rows} is smaller than "
            "the first group drawn; raise it."
        )
    task.check(train, source)
    if task.writes and "group" not in train:
        train = together(train, list(inputs), notes)
    if section.test is None:
        whole = len(train)
        train, test = hold_out(train, task.strata(train), section.test_fraction, spec.seed, source)
        if "group" in train and abs(len(test) / whole - section.test_fraction) > WORTH_SAYING:
            notes.append(f"{len(test) / whole:.0%} of the rows are held out, because groups stay whole.")
    else:
        sheet = section.test_sheet or section.sheet
        table, more = _opened(spec, section.test, section.test_split, sheet, wanted, task, notes)
        dropped += more
        test = _read(table, wanted, task)
        task.check_test(test, train, table.called)
    taught = task.taught_columns if task.writes else ()
    train = without_repeats(train, test, list(inputs), notes, taught=taught)
    try:
        task.check_test(test, train, table.called)
    except DataError as error:  # rows that were left out were the last ones to teach it, or whole groups are held out
        notes.append(f"No training row that is left teaches what a held-out row asks for: {error}")
    notes += task.check_folds(train, spec.validation.folds, source)
    check_groups(train, spec.validation.folds, source)
    facts = task.facts_of(train)
    digest = _fingerprint(train, test)
    return StudyData(train, test, task.labels(train, test), tuple(notes), digest, facts, dropped)


def table_columns(section: DataSection, task: Rows) -> dict[str, str]:
    """The table's name for each column that the task reads, by its key."""
    shared = {column.key: column.of for column in task.columns if column.of}
    return {name: section.column(shared.get(name, name)) for name in (*task.inputs, *task.taught_columns)}


def check_keys(given: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Check that keys of [data] that are not settings are columns of the task.

    Raises:
        SpecError: one is not.
    """
    for key in given:
        if key not in wanted:
            known = [name for name in DataSection.model_fields if name != "columns"]
            hint = nearest(key, [*wanted, *known])
            raise SpecError(f'"{brief(key)}" in [data] is neither a setting nor a column of the task; {hint}')


def _opened(
    spec: StudySpec,
    reference: str,
    split: str,
    sheet: str | None,
    wanted: Mapping[str, str],
    task: Rows,
    notes: list[str],
) -> tuple[Table, int]:
    """A table that the study names, and the number of its rows left out for an empty cell."""
    source, section = locate(reference, spec.folder), spec.data
    table = open_table(
        source, encoding=section.encoding, config=section.config, split=split, sheet=sheet, note=notes.append
    )
    if section.on_missing != DROP:
        return table, 0
    table.require(wanted)
    table, dropped = without_empty(table, wanted, task.columns)
    notes += [dropped.told] * bool(dropped.rows)
    return table, dropped.rows


def _read(
    table: Table,
    wanted: Mapping[str, str],
    task: Rows,
    choose: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
) -> pd.DataFrame:
    """The columns that the task needs, by its own names for them, checked row by row, as texts or images.

    Every row is checked, but only what is needed of it is kept: labels and groups are read first, and then only the
    inputs of the chosen rows.

    Args:
        table: where the rows are.
        wanted: the task's name for a column → its name in the table.
        task: says which of these are not learnt, and what their cells are.
        choose: chooses and orders the rows.

    Raises:
        DataError: a column or a row is missing, a cell is empty or not a single value, or memory does not suffice.
    """
    table.require(wanted)
    read = readers(task.columns, table.folder)
    if wanted.get("group") == wanted.get(task.group, "") and (told := read.get(task.group)):
        read["group"] = lambda cell: str(told(cell))  # an image by its content, whatever its file's name
    texts = Texts(others=read, fillable=fillable(task.columns))
    room = Room(table.called)
    keys = {key: column for key, column in wanted.items() if key not in task.inputs}
    given = {key: column for key, column in wanted.items() if key in task.inputs}
    if not keys:  # rows without other columns than inputs
        keys, given = given, {}
    chosen = _texts(table, keys, texts, room.take)
    if not len(chosen):  # `empty` is true of a frame without columns
        raise nothing_in(table.called)
    chosen = choose(task.gathered(chosen, table.called))
    parts = [chosen]
    if given:
        found = _texts(table, given, texts, lambda rows: room.take(rows[rows.index.isin(chosen.index)]))
        parts = [found.loc[chosen.index], chosen]
    texts.check(table.called, wanted, table.row_name, ADVICE)
    return pd.concat(parts, axis="columns")


def _texts(
    table: Table, columns: Mapping[str, str], texts: Texts, keep: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """The texts of some columns: from each block only what is kept."""
    blocks = [
        keep(pd.DataFrame({key: texts.of(key, block[column]) for key, column in columns.items()}, index=block.index))
        for block in table.blocks(list(columns.values()))
        if len(block)
    ]
    return pd.concat(blocks) if blocks else pd.DataFrame(columns=list(columns), index=pd.RangeIndex(0, name="row"))


class Room:
    """Compares what is kept of a table with the memory that was free, whatever a file says about its size."""

    def __init__(self, called: str) -> None:
        self._called, self._free = called, free_memory()
        self._taken = self._shared = 0  # all copies of a row share an image's bytes

    def take(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The same rows, once they are counted.

        Raises:
            DataError: with them, it is too much for the free memory.
        """
        self._taken += sum(CELL + size(cell) for column in rows for cell in rows[column])
        self._shared += sum(cell.held for column in rows for cell in rows[column] if isinstance(cell, Picture))
        if self._taken * COPIES + self._shared > self._free:
            raise DataError(
                f"{self._called} must fit into memory {COPIES} times, but it has more than "
                f"{format_bytes(self._taken + self._shared)} and {format_bytes(self._free)} were free; set `max_rows` "
                "in [data], or give fewer rows."
            )
        return rows


def _fingerprint(*frames: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.to_csv(index=False).encode())
    if any(row == (*frame.columns,) for frame in frames for row in frame.itertuples(index=False, name=None)):
        # A row equals the header, so the header no longer shows where one frame ends and the other begins.
        digest.update(str([len(frame) for frame in frames]).encode())
    return digest.hexdigest()
