"""Prepare a study: one problem for a single base model; for several, one problem each and one above them all."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autopeft.budget.feasibility import require_room
from autopeft.budget.memory_watch import release_memory
from autopeft.common.exceptions import BudgetError, MethodError, ModelError, SpecError, UserInputError
from autopeft.common.free_memory import free_memory
from autopeft.common.locate import kind_of, locate
from autopeft.common.model_names import MODEL, arm, labels, without_model
from autopeft.common.units import format_bytes
from autopeft.execution import cohort_choice, preflight, several
from autopeft.execution.precision import settle
from autopeft.execution.problem import Problem, references
from autopeft.methods.candidate import CandidateSpace, together
from autopeft.models.files import examine
from autopeft.tasks.several import naming

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec


def made_ready(
    spec: StudySpec, registry: Registry, card: int | None = None, commits: Mapping[str, str] | None = None
) -> tuple[Problem, str]:
    """Prepare a study of one base model or several, in the precision that it names or in one that is chosen now.

    Several models share the precision chosen for the first. All of them stay in the machine's memory.

    Args:
        spec: the study file.
        registry: the methods found.
        card: bytes of a GPU to plan for (`Problem.from_spec`).
        commits: of the hub models that the study was begun with, by their entries in `candidates`.

    Returns:
        The problem, and a sentence on the precision; empty if nothing was measured.

    Raises:
        UserInputError: what the study file, the data or a model lack, in one sentence.
    """
    if spec.tasks:
        return several.made_ready(spec, registry, card, settle)
    if not spec.model.candidates:
        return (Problem.from_spec(spec, registry, card), "") if card else settle(spec, registry)
    _require(spec)
    known, found, told = commits or {}, list[Problem](), ""
    for reference in spec.model.candidates:
        own = spec.with_model(name_or_path=reference, revision=known.get(reference))
        with _named_so():
            if not found:
                one, told = (Problem.from_spec(own, registry, card), "") if card else settle(own, registry)
            else:
                _require_memory(own)
                own = own.with_model(dtype=found[0].spec.model.dtype)
                one = Problem.from_spec(own, registry, card, found[0].rows)
        one.base.module.to("cpu")
        release_memory()
        found.append(one)
    _require_comparable(found)
    return replace(_above(found), planned=card is not None), told


def in_parts(problem: Problem) -> Iterator[Problem]:
    """The problem of each base model, with its own part of the space, while only its model is on the GPU."""
    for one in problem.in_turn():
        if not one.label:
            yield one
            continue
        part = replace(one, space=one.space.on(one.label))
        vars(part).update(cost_estimator=one.cost_estimator, trunk=one.trunk)  # they share what is known about costs
        yield part


def check(problem: Problem) -> None:
    """Make sure that each base model can read the rows and learn from them, and that the budget has room.

    Raises:
        UserInputError: as `require_room` if no model has room, as `preflight.check`, and as `cohort_choice.require`.
    """
    cohort_choice.require(problem)
    without: list[BudgetError] = []
    for one in in_parts(problem):
        try:
            require_room(one.space, one.cost_estimator, one.budget, one.spec.search.hang_timeout)
        except BudgetError as error:
            without.append(error)
    if len(without) == len(problem.each):
        raise without[0]
    for name, part in problem.parts.items():
        with naming(name):
            preflight.check(part)
    for one in () if problem.parts else problem.in_turn():
        with _named_so() if problem.models else nullcontext():
            preflight.check(one)


def _above(found: list[Problem]) -> Problem:
    """The problem that holds the problems of all base models, which share its space."""
    first, spec = found[0], found[0].spec
    assert spec.model.candidates
    names = labels(spec.model.candidates)
    problems, refused = dict(zip(names, found, strict=True)), dict[str, str]()
    for label, one in problems.items():
        refused |= {arm(name, label): reason for name, reason in one.refused.items()}
        for name, part in one.space.items():
            if MODEL in part.dimensions:
                refused[arm(name, label)] = f'it has a dimension "{MODEL}", a name that this study uses itself.'
    space = together({
        label: CandidateSpace(part for name, part in one.space.items() if arm(name, label) not in refused)
        for label, one in problems.items()
    })  # fmt: skip
    _require_methods(spec, space, names, refused)
    origins = {arm(name, label): origin for label, one in problems.items() for name, origin in one.origins.items()}
    rows = min(len(fold.train) for fold in first.folds)
    models = {
        label: replace(
            one,
            label=label,
            space=space,
            refused={name: why for name, why in refused.items() if without_model(name, label) != name},
            origins=origins,
            rung_rows=rows,
        )
        for label, one in problems.items()
    }
    study = spec.with_model(name_or_path=spec.model.candidates[0], revision=None)
    kinds = {name: kind_of(reference, spec.folder) for name, reference in references(study).items()}
    return replace(models[names[0]], spec=study, label="", models=models, refused=refused, kinds=kinds)


def _require(spec: StudySpec) -> None:
    """Check that a study of several models can be run, before anything is loaded."""
    entries, search = spec.model.candidates or (), spec.search
    if isinstance(search.workers, int) and search.workers > 1:
        raise SpecError(
            "`workers` in [search] must be 1 if [model] has `candidates`, because each worker would load all of them, "
            f"but is {search.workers}; remove it, or give one `name_or_path`."
        )
    if len(search.devices or ()) > 1:
        raise SpecError(
            "`devices` in [search] must name one GPU if [model] has `candidates`, which train one after the other, but "
            f"is {search.devices}; name one, or give one `name_or_path`."
        )
    if search.trials < len(entries):
        raise SpecError(
            f"`trials` in [search] must be at least {len(entries)}, the number of `candidates` in [model], but is "
            f"{search.trials}; raise it."
        )


def _require_memory(spec: StudySpec) -> None:
    """Check that one more base model fits into the machine's memory."""
    location = locate(spec.model.name_or_path, spec.folder)
    need, left = examine(location).size if isinstance(location, Path) else 0, free_memory()
    if need > left:
        raise ModelError(
            f"[model] candidates must fit into the machine's memory together, but {location} needs at least "
            f"{format_bytes(need)} more, and {format_bytes(left)} are free; remove one of them."
        )


def _require_comparable(found: list[Problem]) -> None:
    """Check that all models are different, and that a score means the same on each of them."""
    seen: dict[str, Problem] = {}
    for one in found:
        if one.base_digest and one.base_digest in seen:
            both = f"{seen[one.base_digest].spec.model.name_or_path} and {one.spec.model.name_or_path}"
            raise SpecError(f"`candidates` in [model] must be different models, but {both} are the same; remove one.")
        seen[one.base_digest] = one
    first = found[0]
    if first.task.writes:
        for other in found[1:]:
            if other.base.processor.get_vocab() != first.base.processor.get_vocab():
                raise SpecError(
                    f"`candidates` in [model] must have the same tokens for {first.task.kind}, which scores tokens, "
                    f"but {other.spec.model.name_or_path} has other tokens than {first.spec.model.name_or_path}; take "
                    "models of one family."
                )


def _require_methods(spec: StudySpec, space: CandidateSpace, names: list[str], refused: Mapping[str, str]) -> None:
    """Check that each requested method supports at least one model, and that each model has a method."""
    for name in spec.search.methods or ():
        if not space.of_method(name):
            on_each = [arm(name, label) for label in names]
            reasons = "; ".join(f"{one}: {refused[one]}" for one in on_each if one in refused)
            raise MethodError(
                f"[search] methods must each support one of the `candidates` in [model], but {name} supports none. "
                f"{reasons}"
            )
    if without := [name for name in names if name not in space.models]:
        raise MethodError(f"no method supports {without[0]}; remove it from `candidates` in [model].")


@contextmanager
def _named_so() -> Iterator[None]:
    """Name the setting `candidates` in messages about a base model."""
    try:
        yield
    except UserInputError as error:
        told = str(error).replace("[model] name_or_path", "[model] candidates")
        raise type(error)(told) from error.__cause__
