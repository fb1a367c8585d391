"""What a search tries before it draws: what earlier studies found, what did best on recorded tasks, then defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from autopeft.methods import length
from autopeft.search import portfolio

if TYPE_CHECKING:
    from autopeft.methods.candidate import Candidate, CandidateSpace, MethodSpace
    from autopeft.search.portfolio import Entry, Portfolio
    from autopeft.study.file import StudySpec

EARLIER, RECORDED, DEFAULT = "earlier study", "recorded tasks", "default"
"""Where a first candidate comes from."""


class First(NamedTuple):
    """A candidate that is tried before any is drawn.

    Attributes:
        candidate: as this study's space has it.
        source: `EARLIER`, `RECORDED` or `DEFAULT`.
        entry: of the portfolio, where that is its source.
    """

    candidate: Candidate
    source: str
    entry: Entry | None = None


def first(spec: StudySpec, space: CandidateSpace, rows: int) -> tuple[list[First], list[str]]:
    """What is tried first, each candidate once, and a sentence for every earlier study that it starts from.

    First what won the studies of `warm_start`, then the portfolio's entries, of which the best fixed default is the
    first, then the next best default. The others follow as far as the first half of the trials has room; those never
    recorded come before those that were and did worse. The entries leave room there for that second default. Without a
    portfolio, or where it knows none of the methods, every default follows.

    Args:
        spec: the study file.
        space: what is searched.
        rows: to train on, in all.

    Raises:
        SpecError: an earlier study gives nothing.
    """
    earlier, notes = list[First](), list[str]()
    if spec.search.starts:
        from autopeft.search.warm_start import earlier_winners  # and Optuna with it

        found, notes = earlier_winners(spec.search.starts, spec.folder, space)
        earlier = [First(candidate, EARLIER) for candidate in found]
    defaults = {name: First(part.default(), DEFAULT) for name, part in space.items()}
    known, size = known_to(spec), spec.validation.rows_of_fold(rows)
    entries = known.order(size, spec.task.kind, defaults) if known else []
    if not (known and entries):
        return _each_once([*earlier, *defaults.values()]), notes
    half = spec.search.trials // 2
    recorded = [
        First(candidate_of(known, entry, space[entry.method], size), RECORDED, entry)
        for entry in entries[: max(half - len(earlier) - 1, 1)]
    ]
    ranked = [entry.method for entry in known.defaults(size, defaults)]
    queue = _each_once([*earlier, *recorded, *(defaults[name] for name in ranked[:2])])
    others = [*(name for name in defaults if name not in ranked), *ranked[2:]]
    more = _each_once([*queue, *(defaults[name] for name in others)])
    return more[: max(half, len(queue))], notes


def fixed_default(spec: StudySpec, space: CandidateSpace, rows: int) -> Candidate | None:
    """The default of that method whose default is best on recorded tasks of about this size; None where none is known.

    Args:
        spec: the study file.
        space: what is searched.
        rows: to train on, in all.
    """
    known = known_to(spec)
    best = known.defaults(spec.validation.rows_of_fold(rows), space) if known else []
    return space[best[0].method].default() if best else None


def known_to(spec: StudySpec) -> Portfolio | None:
    """The portfolio, where there is one and the study wants it."""
    return portfolio.read() if spec.search.portfolio else None


def candidate_of(known: Portfolio, entry: Entry, part: MethodSpace, size: int) -> Candidate:
    """The candidate of a study's space nearest to an entry: of a default the method's own, as the study has it.

    The length goes by steps, so the epochs depend on the rows.

    Args:
        known: the portfolio.
        entry: of it.
        part: the space of its method.
        size: rows that a fold trains on.
    """
    if entry.default:
        return part.default()
    values = {**entry.params, **entry.training}
    batches = length.steps(1, size, int(part.training.nearest(values)["batch_size"]))
    epochs = max(round(known.steps(entry, size) / batches), 1)
    return part.candidate(part.own.nearest(values), part.training.nearest({**values, "epochs": epochs}))


def _each_once(found: list[First]) -> list[First]:
    kept: list[First] = []
    for one in found:
        if all(one.candidate.flat != other.candidate.flat for other in kept):
            kept.append(one)
    return kept
