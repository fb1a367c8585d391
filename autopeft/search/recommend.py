"""What a search would try first, at which length, and what to expect of it: from the rows alone, without a model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from autopeft.methods.candidate import CandidateSpace
from autopeft.search import start
from autopeft.search.portfolio import FAR, Portfolio
from autopeft.study.sections import FIXED_SEARCH_KEYS
from autopeft.tasks.registry import find_task
from autopeft.tasks.study_rows import read_rows, recognised

if TYPE_CHECKING:
    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec

UNCHECKED = (
    "Which methods the model supports, and what [budget] leaves room for, was not looked at here; `autopeft plan` does."
)
FEW = 3
"""Groups of a kind below which its tasks say little of another one."""


@dataclass(frozen=True)
class Tried:
    """A candidate that is tried first.

    Attributes:
        candidate: as a person reads it.
        params: as Optuna and MLflow know it.
        source: an earlier study, recorded tasks, or a method's default.
        epochs, steps: its length; steps of one fold.
        gain, error: points over the best fixed default on recorded tasks, and the standard error over groups; None
            where they are not known.
        tasks, groups: how many are behind it.
    """

    candidate: str
    params: dict[str, Any]
    source: str
    epochs: int
    steps: int
    gain: float | None = None
    error: float | None = None
    tasks: int = 0
    groups: int = 0


@dataclass(frozen=True)
class Recommendation:
    """What a study would begin with.

    Attributes:
        study, kind: its name, and the kind of its task.
        rows: to train on, in all.
        fold_rows: that a fold trains on.
        beside: the method whose default is the best fixed one; None where nothing is known.
        tried: in order.
        left: methods whose default is trained at the end alone.
        expected: a sentence; empty where nothing is known.
        cautions: why that may not hold here, a sentence each.
    """

    study: str
    kind: str
    rows: int
    fold_rows: int
    beside: str | None
    tried: tuple[Tried, ...]
    left: tuple[str, ...]
    expected: str
    cautions: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        return asdict(self)


def recommend(spec: StudySpec, registry: Registry) -> Recommendation:
    """What a search over the methods that were found would try first.

    Raises:
        UserInputError: whatever the study file or its rows lack, in one sentence.
    """
    task = find_task(spec.task.kind, registry.blocked).configured(spec.task.options)
    spec, task, told = recognised(spec, task)
    rows = len(read_rows(spec, task.searching(spec.search.overrides), told).train)
    found = [registry[name] for name in registry.chosen(spec.search.methods, spec.search.exclude)]
    methods = [method for method in found if not method.tasks or task.kind in method.tasks]
    space = CandidateSpace.build(methods, None, spec.search.overrides, FIXED_SEARCH_KEYS, task.search_space())
    first, notes = start.first(spec, space, rows)
    known, size = start.known_to(spec), start.rows_of_fold(spec, rows)
    defaults = known.defaults(size, space) if known else []
    queued = [one.candidate.flat for one in first]
    return Recommendation(
        spec.name,
        task.kind,
        rows,
        size,
        defaults[0].method if defaults else None,
        tuple(_tried(one, known, size, task.kind, space) for one in first),
        tuple(name for name, part in space.items() if part.default().flat not in queued),
        _expectation(known, size) if known and defaults else "",
        (*notes, *(_cautions(known, size, task.kind) if known and defaults else [_unknown(spec)]), UNCHECKED),
    )


def _tried(one: start.First, known: Portfolio | None, size: int, kind: str, space: CandidateSpace) -> Tried:
    hyper = one.candidate.hyper
    steps = hyper.epochs * math.ceil(size / hyper.batch_size)
    shown = (str(one.candidate), one.candidate.flat, one.source, hyper.epochs, steps)
    if known is None or one.entry is None:
        return Tried(*shown)
    beside = known.defaults(size, space)[0]
    found = known.expected(one.entry, beside, size, kind)
    gain, error = (None if math.isnan(value) else round(value, 2) for value in (found.gain, found.error))
    return Tried(*shown, gain, error, found.tasks, found.groups)


def _expectation(known: Portfolio, size: int) -> str:
    """What such a start brought on tasks that had no part in choosing it."""
    near = known.size(size)
    behind = f"{_count(near.tasks, 'recorded task')} of {_count(near.groups, 'group')} with about {near.rows:,} rows"
    if math.isnan(near.gain):
        return f"What to expect is not known: only {behind} stand behind it, and none could be left out."
    return (
        f"The best of such a start was {near.gain:+.1f} points (standard error {near.error:.1f}) beside "
        f"{near.default}'s default, on {behind}, each group left out where its start was chosen."
    )


def _cautions(known: Portfolio, size: int, kind: str) -> list[str]:
    """How far the study is from what was recorded."""
    found = [f"All was recorded on one model, {known.model}; others may differ."]
    near = known.near(size)
    if not near.any():
        sizes = ", ".join(f"{one.rows:,}" for one in known.sizes)
        found.append(
            f"A fold trains on {size:,} rows, and on {sizes} where it was recorded: over {FAR:g} times as many or as "
            "few, so take this as a guess."
        )
    groups = {cell.group for cell, one in zip(known.cells, near, strict=True) if cell.kind == kind and one}
    if not any(cell.kind == kind for cell in known.cells):
        others = ", ".join(sorted({cell.kind for cell in known.cells}))
        found.append(f"No task of the kind {kind} was recorded, so those of other kinds stand in: {others}.")
    elif near.any() and len(groups) < FEW:
        found.append(
            f"Of the kind {kind} {_count(len(groups), 'group')} of tasks had about as many rows; those of other kinds "
            "count for most of this."
        )
    return found


def _unknown(spec: StudySpec) -> str:
    if not spec.search.portfolio:
        return "`portfolio = false` in [search]: nothing recorded is looked at, and every default is tried."
    return "Nothing was recorded of these methods, so what to expect is not known, and every default is tried."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def show(found: Recommendation) -> RenderableType:
    """A recommendation on a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tried first", ratio=1)
    table.add_column("length")
    table.add_column("points over the best default" if found.beside else "")
    table.add_column("behind it")
    for one in found.tried:
        gain = "" if one.gain is None else f"{one.gain:+.1f}" + f" ± {one.error:.1f}" * (one.error is not None)
        behind = f"{_count(one.tasks, 'task')}, {_count(one.groups, 'group')}" if one.tasks else one.source
        best = one.source == start.RECORDED and one.params["method"] == found.beside and not one.gain
        cells = (one.candidate, f"{_count(one.epochs, 'epoch')}, {one.steps:,} steps", "it is that" if best else gain)
        table.add_row(*map(Text, (*cells, behind)))
    parts: list[RenderableType] = [
        Text(f"{found.study}: {found.kind}, {found.rows:,} rows to train on, {found.fold_rows:,} to a fold", "bold"),
        table,
        Text("Then candidates are drawn, near the defaults at first."),
    ]
    if found.left:
        parts.append(Text(f"Trained at the end, to compare with: the defaults of {', '.join(found.left)}."))
    sentences = [one for one in (found.expected, *found.cautions) if one]
    return Group(*parts, *(Padding(Text(f"• {sentence}"), (0, 0, 0, 1)) for sentence in sentences))
