"""What a search tries before it draws: what earlier studies found, what did best on recorded tasks, then defaults."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from autopeft.methods import length
from autopeft.search import portfolio

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        entry: its entry in the portfolio, if that is its source.
    """

    candidate: Candidate
    source: str
    entry: Entry | None = None


def first(spec: StudySpec, space: CandidateSpace, rows: int) -> tuple[list[First], list[str]]:
    """What is tried first, each candidate once, and a sentence for every earlier study that it starts from.

    First come the winners of the studies in `warm_start`, then the portfolio's entries, beginning with the best fixed
    default, then the next best default. The other defaults follow as far as they fit in the first half of the trials;
    those never recorded come before those that were and did worse. The entries leave room there for that second
    default. Without a portfolio, or where it knows none of the methods, every default follows.

    Several base models take turns: the first of each in their order, then the second of each, and so on.

    Args:
        spec: the study file.
        space: what is searched.
        rows: to train on, in all.

    Raises:
        SpecError: an earlier study gives nothing.
    """
    earlier, notes = list[First](), list[str]()
    if spec.search.starts:
        from autopeft.search.warm_start import earlier_winners  # which imports Optuna

        winners, notes = earlier_winners(spec.search.starts, spec.folder, space)
        earlier = [First(candidate, EARLIER) for candidate in winners]
    spaces = [space.on(model) for model in space.models]
    known, size = known_to(spec), spec.validation.rows_of_fold(rows)
    found = [_recorded(known, part, size, spec.task.kind) for part in spaces] if known else []
    if not any(found):
        return _each_once([*earlier, *_in_turn([_defaults(part) for part in spaces])]), notes
    assert known
    half = spec.search.trials // 2
    entries = [one or _defaults(part)[:1] for one, part in zip(found, spaces, strict=True)]
    recorded = _in_turn(entries)[: max(half - len(earlier) - len(spaces), len(spaces))]
    ranked = [[entry.method for entry in known.defaults(size, part.methods)] for part in spaces]
    orders = [_defaults(part, order) for part, order in zip(spaces, ranked, strict=True)]
    queue = _each_once([*earlier, *recorded, *_in_turn([order[:2] for order in orders])])
    others = [
        [*(one for one in _defaults(part) if one.candidate.method.name not in order), *(_defaults(part, order)[2:])]
        for part, order in zip(spaces, ranked, strict=True)
    ]
    more = _each_once([*queue, *_in_turn(others)])
    return more[: max(half, len(queue))], notes


def _defaults(space: CandidateSpace, order: Iterable[str] | None = None) -> list[First]:
    """The defaults of one base model's methods; only of those in `order`, if that is given."""
    parts = space.methods
    return [First(parts[name].default(), DEFAULT) for name in (parts if order is None else order)]


def _recorded(known: Portfolio, space: CandidateSpace, size: int, kind: str) -> list[First]:
    """The portfolio's entries for one base model, in order."""
    parts = space.methods
    return [
        First(candidate_of(known, entry, parts[entry.method], size), RECORDED, entry)
        for entry in known.order(size, kind, parts)
    ]


def _in_turn(several: Sequence[Sequence[First]]) -> list[First]:
    """The first of each, then the second of each, and so on."""
    return [one for turn in zip_longest(*several) for one in turn if one is not None]


def fixed_defaults(spec: StudySpec, space: CandidateSpace, rows: int) -> list[Candidate]:
    """For each base model, the default that is best on recorded tasks of about this size.

    Models for which none is known are left out.

    Args:
        spec: the study file.
        space: what is searched.
        rows: to train on, in all.
    """
    known, size = known_to(spec), spec.validation.rows_of_fold(rows)
    every = [space.on(model).methods for model in space.models] if known else []
    ranked = [(parts, known.defaults(size, parts)) for parts in every if known]
    return [parts[best[0].method].default() for parts, best in ranked if best]


def expected(spec: StudySpec, space: CandidateSpace, rows: int) -> dict[str, float]:
    """By method, how far its score is expected to be above that of the best fixed default, in shares of 1.

    Args:
        spec: the study file.
        space: what is searched.
        rows: to train on, in all.
    """
    known, size = known_to(spec), spec.validation.rows_of_fold(rows)
    found = known.expected_of_methods(size, spec.task.kind, space.methods) if known else {}
    return {method: points / 100 for method, points in found.items()}


def known_to(spec: StudySpec) -> Portfolio | None:
    """The portfolio, where there is one and the study wants it."""
    return portfolio.read() if spec.search.portfolio else None


def candidate_of(known: Portfolio, entry: Entry, part: MethodSpace, size: int) -> Candidate:
    """The candidate in a study's space nearest to an entry; for a default, the method's own default in this study.

    The length is kept in steps, so the epochs depend on the rows.

    Args:
        known: the portfolio.
        entry: one of its entries.
        part: the space of its method.
        size: number of rows that a fold trains on.
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
