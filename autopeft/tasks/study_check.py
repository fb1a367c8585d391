"""Finds mistakes in a study within a moment: before rows are read, and before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import UserInputError
from autopeft.common.locate import locate
from autopeft.data.header import header
from autopeft.data.load import check_keys, table_columns
from autopeft.data.table import Table, reading
from autopeft.methods.candidate import check_names
from autopeft.methods.sharing import SHARING_SPACE, SharingMethod
from autopeft.study.file import base_models
from autopeft.study.folder import holds_study
from autopeft.study.sections import FIXED_SEARCH_KEYS
from autopeft.study.several_tasks import alone
from autopeft.tasks import user_metric
from autopeft.tasks.registry import find_task
from autopeft.tasks.several import SPACE, naming, require
from autopeft.tasks.study_methods import with_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec
    from autopeft.tasks.contract import Task


def mistakes_in(spec: StudySpec, registry: Registry) -> list[str]:
    """A sentence for each mistake in the kind of task, methods, dimensions, files and columns.

    Args:
        spec: the study.
        registry: the methods found.
    """
    found: list[str] = []

    def trying(look: Callable[..., Any], *given: Any) -> Any:
        """What a check returns; None if it found something wrong."""
        try:
            return look(*given)
        except UserInputError as error:
            found.append(str(error))
            return None

    begun = holds_study(spec.output)  # then it is compared with what it began with
    if not begun:
        registry = trying(with_settings, registry, spec) or registry
    chosen = trying(registry.chosen, spec.search.methods, spec.search.exclude) or []
    methods = [method for method in (trying(registry.__getitem__, name) for name in chosen) if method]
    studies = [alone(spec, one) for one in spec.tasks or ()] or [spec]
    lookers = [_naming(one.name, trying) for one in spec.tasks or ()] or [trying]
    tasks = [_task(one, registry, look) for one, look in zip(studies, lookers, strict=True)]
    for task, look in zip(tasks, lookers, strict=True):
        if task and spec.tasks:
            look(require, task)
    if all(tasks) and len(methods) == len(chosen):
        searched = [SharingMethod(method) for method in methods] if spec.tasks else methods
        space = SPACE.merged(SHARING_SPACE) if spec.tasks else tasks[0].search_space()
        for key, value in spec.search.overrides.items():
            trying(check_names, searched, {key: value}, FIXED_SEARCH_KEYS, space)
    if not begun:
        for model in base_models(spec):
            trying(locate, model, spec.folder)
        for one, task, look in zip(studies, tasks, lookers, strict=True):
            for reference in filter(None, (one.data.train, one.data.test)):
                source = look(locate, reference, spec.folder)
                if task and isinstance(source, Path) and source.is_file():
                    _check_columns(one, task, source, look)
    return found


def _naming(task: str, trying: Callable[..., Any]) -> Callable[..., Any]:
    """The same for one of several tasks, with its name in the sentences."""

    def look(check: Callable[..., Any], *given: Any) -> Any:
        with naming(task):
            return check(*given)

    return lambda check, *given: trying(look, check, *given)


def _task(spec: StudySpec, registry: Registry, trying: Callable[..., Any]) -> Any:
    """The study's task with its settings; None if something is wrong with it."""
    task = trying(lambda: find_task(spec.task.kind, registry.blocked).configured(spec.task.options))
    if task and not user_metric.is_own(spec.validation.metric):
        trying(task.metric, spec.validation.metric)
    return task


def _check_columns(spec: StudySpec, task: Task, source: Path, trying: Callable[..., Any]) -> None:
    """Check that a file has the columns that the study reads."""
    names = trying(_header, source, spec.data.encoding)
    if names is None:
        return
    section = spec.data
    if not section.names_columns:
        columns, _ = task.recognised(names)
        section = section.model_copy(update={"columns": columns})
    task = task.taking(section.named)
    wanted = table_columns(section, task)
    trying(check_keys, section.columns, {**wanted, **{column.of: "" for column in task.columns if column.of}})
    if group := section.group or (task.group and section.column(task.group)):
        wanted["group"] = group
    table = Table(str(source), names, lambda columns: iter(()))
    if not names:
        wanted = dict([*wanted.items()][:1])  # the table is empty: one sentence says so
    for key, column in wanted.items():
        trying(table.require, {key: column})


def _header(source: Path, encoding: str | None) -> list[str] | None:
    with reading(str(source)):
        return header(source, encoding)
