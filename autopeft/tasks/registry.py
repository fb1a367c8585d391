"""Discover the kinds of task that plugins bring, with their provenance."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from autopeft.common.containment import unguarded
from autopeft.common.exceptions import PluginError, SpecError, brief, nearest
from autopeft.common.plugins import LOADING_SECONDS, Found, Origin, check_contract, check_signatures, load_plugins
from autopeft.tasks.column import Column
from autopeft.tasks.contract import CONTRACT, Task
from autopeft.tasks.metric import Metric

if TYPE_CHECKING:
    from autopeft.common.plugins import Fault
    from autopeft.methods.registry import Registry

KIND = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@functools.cache
@unguarded()
def discover(block: tuple[str, ...] = (), seconds: float = LOADING_SECONDS) -> Found[Task]:
    """The kinds of task of every plugin that can be used; see `load_plugins`. `block` names entry points to leave out.

    The result is cached: a process looks for them once.
    """
    return load_plugins("register_tasks", "kind of task", _check, block, seconds)


def left_out(methods: Registry) -> tuple[Fault, ...]:
    """Every plugin that cannot be used because of its methods or its kinds of task; methods come first."""
    return tuple(dict.fromkeys((*methods.faults, *discover(methods.blocked).faults)))


def task_kinds(block: tuple[str, ...] = ()) -> dict[str, Task]:
    """Every kind of task by its name in study files."""
    return discover(block).items


def find_task(kind: str, block: tuple[str, ...] = ()) -> Task:
    """The kind of task of that name, with its default settings.

    Raises:
        SpecError: there is no such kind, or its plugin is broken.
    """
    found = discover(block)
    if kind not in found.items:
        broken = next((str(fault) for fault in found.faults if fault.concerns(kind)), None)
        why = f"its plugin is broken: {broken}" if broken else nearest(kind, found.items)
        raise SpecError(f'`kind` in [task] is "{brief(kind)}", which no task provides; {why}')
    return found.items[kind].configured({})


def _check(task: Any, origin: Origin) -> tuple[str, Task]:
    if not isinstance(task, Task):
        raise PluginError(f"register_tasks() must yield Task instances, but yielded {task!r}.")
    kind, shown = str(getattr(task, "kind", "")), type(task).__name__
    if not KIND.fullmatch(kind):
        raise PluginError(
            f'a task needs words joined by hyphens as `kind`, such as "text-regression", but {shown} has {kind!r}.'
        )
    check_contract(getattr(task, "contract", None), CONTRACT, task, "task", kind, origin)
    check_signatures(task, Task)
    for name, holds in (("columns", Column), ("metrics", Metric)):
        given = getattr(task, name, ())
        values = list(given.values()) if name == "metrics" and isinstance(given, dict) else list(given)
        if not values or not all(isinstance(value, holds) for value in values):
            raise PluginError(f"`{name}` of {shown} must hold one {holds.__name__} or more, but is {given!r}.")
    if not getattr(task, "auto_class", ""):
        raise PluginError(f'{shown} must name its `auto_class`, such as "AutoModelForSequenceClassification".')
    return kind, task
