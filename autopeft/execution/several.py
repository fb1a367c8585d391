"""Prepares a study of several tasks: a problem for each of them alone, and one above them that the search works on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from autopeft.common.exceptions import MethodError, in_a_line
from autopeft.common.locate import portable
from autopeft.data.load import StudyData
from autopeft.data.rows_of_tasks import RowsOfTasks
from autopeft.execution.folds import joined_folds
from autopeft.execution.problem import Problem, kinds_of
from autopeft.execution.shares import shares_of
from autopeft.execution.weight_check import WeightCheck
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.contract import PeftMethod
from autopeft.methods.sharing import BELOW, OWN, SHARED, SHARING, SharingMethod, for_each_method, narrowed
from autopeft.models.attach import attach, trainable
from autopeft.models.model_of_tasks import ModelOfTasks, share_weights
from autopeft.study.sections import FIXED_SEARCH_KEYS
from autopeft.study.several_tasks import GAIN, alone
from autopeft.tasks.several import SPACE, TEMPERATURE, SeveralTasks, naming, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.methods.registry import Registry
    from autopeft.models.base import BaseModel
    from autopeft.study.file import StudySpec
    from autopeft.study.sections import NamedTask

    Prepare = Callable[[StudySpec, Registry], tuple[Problem, str]]


def made_ready(spec: StudySpec, registry: Registry, card: int | None, settle: Prepare) -> tuple[Problem, str]:
    """Prepare a study of several tasks; arguments and result as of `preparation.made_ready`.

    Args:
        spec: the study file.
        registry: the methods found.
        card: bytes of a GPU to plan for.
        settle: prepares the first task's problem, in the precision that all of them then have.

    Raises:
        UserInputError: what the study file, the data or the model lack, in one sentence with the task's name.
    """
    assert spec.tasks
    parts, told = dict[str, Problem](), ""
    for task in spec.tasks:
        own = _alone(spec, task)
        with naming(task.name):
            if not parts:
                part, told = (Problem.from_spec(own, registry, card), "") if card else settle(own, registry)
            else:
                own = own.with_model(dtype=next(iter(parts.values())).spec.model.dtype)
                part = Problem.from_spec(own, registry, card)
            require(part.task)
        parts[task.name] = part
    return _above(spec, parts, planned=card), told


def _alone(spec: StudySpec, task: NamedTask) -> StudySpec:
    """The study of one task, without the dimensions that only several tasks have."""
    overrides = {
        name: {key: own for key, own in value.items() if key != SHARING} if isinstance(value, dict) else value
        for name, value in spec.search.overrides.items()
        if name not in (SHARING, TEMPERATURE)
    }
    search = spec.search.model_copy(update={"overrides": overrides, "workers": 1})
    return alone(spec.model_copy(update={"search": search}), task)


def base_of(parts: Mapping[str, BaseModel]) -> BaseModel:
    """One base model for several tasks, from the base model of each: only their heads differ from now on."""
    models = {name: part.module for name, part in parts.items()}
    share_weights(models, {name: part.spec.head for name, part in parts.items()})
    whole = replace(next(iter(parts.values())), module=ModelOfTasks(models), parts=dict(parts), whole={})
    skeleton = whole.skeleton
    assert isinstance(skeleton, ModelOfTasks)
    for name, part in parts.items():
        vars(part)["skeleton"] = skeleton.of(name)  # on the meta device too they share what they share here
    return whole


def _above(spec: StudySpec, parts: dict[str, Problem], planned: int | None) -> Problem:
    first = next(iter(parts.values()))
    base = base_of({name: part.base for name, part in parts.items()})
    train, test = (RowsOfTasks.of({name: getattr(part, side) for name, part in parts.items()}) for side in
                   ("train", "test"))  # fmt: skip
    task = SeveralTasks(
        {name: part.task for name, part in parts.items()},
        train,
        {name: part.metric for name, part in parts.items()},
        {name: part.base.spec for name, part in parts.items()},
    )
    rows = _rows(parts)
    space, refused = _space(spec, parts, base, spec.validation.rows_of_fold(len(rows.train)))
    spec = spec.with_metric(GAIN).with_model(dtype=first.spec.model.dtype, revision=first.spec.model.revision)
    shares = shares_of(spec, base, first.device, planned)
    return replace(
        first,
        spec=spec,
        task=task,
        rows=rows,
        base=base,
        train=train,
        test=test,
        folds=tuple(joined_folds(train, {name: part.folds for name, part in parts.items()})),
        space=space,
        budget=shares[0].budget,
        refused=refused,
        shares=shares,
        weight_check=WeightCheck(
            base, lambda: base_of({name: part.weight_check.load() for name, part in parts.items()})
        ),
        base_model=portable(spec.model.name_or_path, spec.folder),
        kinds=kinds_of(spec),
        metric_digest="".join(part.metric_digest for part in parts.values()),
        packed={},
        planned=planned is not None,
        parts=parts,
    )


def _rows(parts: Mapping[str, Problem]) -> StudyData:
    """The rows of all tasks, of which only the task is kept here."""
    train, test = (
        pd.concat(
            [pd.DataFrame({"task": name}, index=getattr(part.rows, side).index) for name, part in parts.items()],
            ignore_index=True,
        )
        for side in ("train", "test")
    )
    digests = "\n".join(f"{name} {part.rows.fingerprint}" for name, part in parts.items())
    notes = tuple(f"{name}: {note}" for name, part in parts.items() for note in (*part.rows.notes, *part.task.notes))
    dropped = sum(part.rows.dropped for part in parts.values())
    return StudyData(train, test, (), notes, hashlib.sha256(digests.encode()).hexdigest(), {}, dropped)


def _space(
    spec: StudySpec, parts: Mapping[str, Problem], base: BaseModel, rows: int
) -> tuple[CandidateSpace, dict[str, str]]:
    """What is searched: the methods that can be on every task, with `sharing` and the temperature."""
    refused: dict[str, str] = {}
    for task, part in parts.items():
        for name, reason in part.refused.items():
            refused.setdefault(name, f"{task}: {reason}")
    first = next(iter(parts.values()))
    methods, for_all = [], spec.search.overrides.get(SHARING)
    for name in first.space.methods:
        if name in refused:
            continue
        inner = first.space[name].method
        if reason := _fault(inner, parts, base):
            refused[name] = reason
            continue
        method, table = SharingMethod(inner, _choices(inner, base)), spec.search.overrides.get(name)
        given = table.get(SHARING) if isinstance(table, Mapping) else None  # which is checked with its other dimensions
        if given is None and for_all is not None and narrowed(for_all, method.choices) is None:
            refused[name] = f"its add-on cannot be shared in the lower layers only, but `sharing` is {for_all!r}"
        else:
            methods.append(method)
    if not methods or (spec.search.methods and refused):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items()) or "none was found"
        raise MethodError(f"[search] methods must support every one of [[tasks]], but {reasons}")
    overrides = for_each_method(spec.search.overrides, methods)
    space = CandidateSpace.build(methods, base.spec, overrides, FIXED_SEARCH_KEYS, SPACE, rows)
    if TEMPERATURE not in overrides:
        space = CandidateSpace(replace(part, task=SPACE) for part in space.values())
    return space, refused


def _fault(method: PeftMethod, parts: Mapping[str, Problem], base: BaseModel) -> str:
    """Why a method that supports each task alone cannot learn them together; "" if it can."""
    if type(method).callback is not PeftMethod.callback:
        return "it has a training callback, which follows one task only."
    own = method.search_space(base.spec)
    if SHARING in own or TEMPERATURE in own:
        return f'it has a dimension "{SHARING}" or "{TEMPERATURE}", names that this study uses itself.'
    if any(dict(method.search_space(part.base.spec)) != dict(own) for part in parts.values()):
        return "its search space differs between the tasks."
    try:
        attach(base, SharingMethod(method), {**own.defaults(), SHARING: SHARED}, meta=True)
    except Exception as error:  # a method may do anything
        return in_a_line(error)
    return ""


def _choices(method: PeftMethod, base: BaseModel) -> tuple[str, ...]:
    """How far an add-on can be shared; not in part if there is one layer, or if all of it is outside of the layers."""
    part = next(iter(base.parts.values()))
    model = attach(part, method, method.search_space(part.spec).defaults(), meta=True)
    upper = part.spec.layers[len(part.spec.layers) // 2 :]
    inside = [any(f".{layer}." in f".{name}" for layer in upper) for name in trainable(model)]
    return (SHARED, OWN, BELOW) if any(inside) and len(part.spec.layers) > 1 else (SHARED, OWN)
