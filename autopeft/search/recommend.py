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

from autopeft.common.exceptions import SpecError
from autopeft.common.model_names import labels
from autopeft.methods import length
from autopeft.methods.candidate import CandidateSpace, together
from autopeft.methods.search_space import readable
from autopeft.search import start
from autopeft.search.portfolio import FAR, Portfolio
from autopeft.study.sections import FIXED_SEARCH_KEYS
from autopeft.tasks.registry import find_task
from autopeft.tasks.study_methods import with_settings
from autopeft.tasks.study_rows import read_rows, recognised, rows_that_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.methods.candidate import Candidate
    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec

UNCHECKED = "This does not check which methods the model supports or what fits [budget]; `autopeft plan` does."
SAME = 1.5
"""A length counts as the recorded one up to this many times more, or fewer, steps."""

FEW = 3
"""With fewer groups of a kind, its tasks say little about a new one."""


@dataclass(frozen=True)
class Tried:
    """A candidate that is tried first.

    Attributes:
        candidate: for a person to read: the method, and what differs from its default.
        params: as Optuna and MLflow know it.
        source: an earlier study, recorded tasks, or a method's default.
        epochs, steps: its length; steps of one fold.
        gain, error: points over the best fixed default on recorded tasks, and the standard error over groups; None
            where they are not known.
        tasks, groups: how many are behind the gain.
        advised: number of steps it was recorded with, at the nearest sizes.
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
    advised: int | None = None


@dataclass(frozen=True)
class Recommendation:
    """What a study would begin with.

    Attributes:
        study, kind: its name, and the kind of its task.
        rows: number to train on, in all.
        fold_rows: number that a fold trains on.
        beside: the method whose default is the best fixed one; None where nothing is known.
        tried: in order.
        left: methods whose default is trained only at the end.
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
        """The recommendation for a script."""
        return asdict(self)


def recommend(spec: StudySpec, registry: Registry) -> Recommendation:
    """What a search over the methods that were found would try first.

    Raises:
        UserInputError: whatever the study file or its rows lack, in one sentence.
    """
    if spec.tasks:
        raise SpecError(
            "what to expect is known of studies of one task, but this one has `[[tasks]]`; ask for one of them."
        )
    task = find_task(spec.task.kind, registry.blocked).configured(spec.task.options)
    spec, task, told = recognised(spec, task)
    rows = len(read_rows(spec, task.searching(spec.search.overrides), told).train)
    registry = with_settings(registry, spec)
    found = [registry[name] for name in registry.chosen(spec.search.methods, spec.search.exclude)]
    methods = [method for method in found if not method.tasks or task.kind in method.tasks]
    known, size = start.known_to(spec), spec.validation.rows_of_fold(rows)
    own, counted = task.search_space(), rows_that_count(spec, task, rows)
    space = CandidateSpace.build(methods, None, spec.search.overrides, FIXED_SEARCH_KEYS, own, counted)
    if spec.model.candidates:
        space = together(dict.fromkeys(labels(spec.model.candidates), space))
    first, notes = start.first(spec, space, rows)
    defaults = known.defaults(size, space.methods) if known else []
    queued = [one.candidate.flat for one in first]
    tried = tuple(_tried(one, known, size, task.kind, space) for one in first)
    return Recommendation(
        spec.name,
        task.kind,
        rows,
        size,
        defaults[0].method if defaults else None,
        tried,
        tuple(name for name, part in space.items() if part.default().flat not in queued),
        _expectation(known, size) if known and defaults else "",
        (*notes, *(_cautions(known, size, task.kind, tried) if known and defaults else [_unknown(spec)]), UNCHECKED),
    )


def _tried(one: start.First, known: Portfolio | None, size: int, kind: str, space: CandidateSpace) -> Tried:
    hyper = one.candidate.hyper
    steps = length.steps(hyper.epochs, size, hyper.batch_size)
    shown = (_named(one.candidate, space), one.candidate.flat, one.source, hyper.epochs, steps)
    if known is None or one.entry is None:
        return Tried(*shown)
    beside = known.defaults(size, space.methods)[0]
    found = known.expected(one.entry, beside, size, kind)
    gain, error = (None if math.isnan(value) else round(value, 2) for value in (found.gain, found.error))
    return Tried(*shown, gain, error, found.tasks, found.groups, round(known.steps(one.entry, size)))


def _named(candidate: Candidate, space: CandidateSpace) -> str:
    name, default = candidate.name, space[candidate.name].default().flat
    other = {key.partition(".")[2]: value for key, value in candidate.flat.items() if default.get(key) != value}
    other.pop("epochs", None)  # the length has a column of its own
    return readable(name, other) if other or candidate.flat != default else f"{name}, its default"


def _expectation(known: Portfolio, size: int) -> str:
    """What such a start gained on tasks that had no part in choosing it."""
    near = known.size(size)
    behind = f"{_count(near.tasks, 'recorded task')} of {_count(near.groups, 'group')} with about {near.rows:,} rows"
    if math.isnan(near.gain):
        return f"What to expect is unknown: this rests on only {behind}, too few to leave one group out."
    return (
        f"The best of these candidates scored {near.gain:+.1f} points (standard error {near.error:.1f}) against "
        f"{near.default}'s default, on {behind}. Each group was left out when its candidates were chosen."
    )


def _cautions(known: Portfolio, size: int, kind: str, tried: Sequence[Tried]) -> list[str]:
    """How far the study is from what was recorded."""
    found = [f"All of this was recorded on one model, {known.model}; yours may differ."]
    near = known.near(size)
    if not near.any():
        sizes = ", ".join(f"{one.rows:,}" for one in known.sizes)
        found.append(
            f"A fold trains on {size:,} rows here, but on {sizes} in the records: a factor of over {FAR:g}, "
            "so take this as a guess."
        )
    if other := [one for one in tried if one.advised and not 1 / SAME <= one.steps / one.advised <= SAME]:
        found.append(
            f"{_count(len(other), 'candidate')} would not train for the recorded number of steps, for example "
            f"{other[0].steps:,} steps instead of {other[0].advised:,}; widen `epochs` in [search] to change that."
        )
    groups = {cell.group for cell, one in zip(known.cells, near, strict=True) if cell.kind == kind and one}
    if not any(cell.kind == kind for cell in known.cells):
        others = ", ".join(sorted({cell.kind for cell in known.cells}))
        found.append(f"No task of the kind {kind} was recorded, so this uses tasks of other kinds: {others}.")
    elif near.any() and len(groups) < FEW:
        found.append(
            f"{_count(len(groups), 'group')} of {kind} tasks had about as many rows, so tasks of other kinds "
            "count for most of this."
        )
    return found


def _unknown(spec: StudySpec) -> str:
    if not spec.search.portfolio:
        return "`portfolio = false` in [search]: recorded tasks are not used, and every default is tried."
    return "These methods have no recorded tasks, so what to expect is unknown, and every default is tried."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def show(found: Recommendation) -> RenderableType:
    """A recommendation on a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("tried first", overflow="fold")
    table.add_column("length")
    table.add_column("points gained" if found.beside else "")
    table.add_column("behind it")
    for one in found.tried:
        gain = "" if one.gain is None else f"{one.gain:+.1f}" + f" ± {one.error:.1f}" * (one.error is not None)
        behind = f"{_count(one.tasks, 'task')}, {_count(one.groups, 'group')}" if one.tasks else one.source
        best = one.source == start.RECORDED and one.params["method"] == found.beside and not one.gain
        cells = (one.candidate, f"{_count(one.epochs, 'epoch')}, {one.steps:,} steps", "best default" if best else gain)
        table.add_row(*map(Text, (*cells, behind)))
    parts: list[RenderableType] = [
        Text(f"{found.study}: {found.kind}, {found.rows:,} rows to train on, {found.fold_rows:,} to a fold", "bold"),
        table,
        Text("After these, candidates are drawn: near the defaults at first."),
    ]
    if found.left:
        parts.append(Text(f"Trained at the end, to compare with: the defaults of {', '.join(found.left)}."))
    sentences = [one for one in (found.expected, *found.cautions) if one]
    return Group(*parts, *(Padding(Text(f"• {sentence}"), (0, 0, 0, 1)) for sentence in sentences))
