"""A study file with `[[tasks]]`: what goes with several tasks, and the study of each task alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autopeft.study.folder import SINGLE_TASKS
from autopeft.study.sections import LOCAL_BACKEND, SEVERAL_TASKS, NamedTask, TaskSection

if TYPE_CHECKING:
    from autopeft.study.file import StudySpec

FEWEST, MOST = 2, 16
"""Fewest and most tasks of a study."""

OTHER_METRICS = ("score", "when_stopped")
"""What follows `score_` and `test_` in names of metrics in MLflow that are not a task's; so does `default_<method>`."""

GAIN = "gain"
"""What a study of several tasks maximises: the mean over the tasks of the task's score less that of its single-task
default. Scores are those of the folds, and the gain is in the units of the tasks' metrics."""


def completed(given: Any) -> Any:
    """The content of a study file with `[[tasks]]`, with a [task] and a [data] that stand for all of them.

    Raises:
        ValueError: it has a [task] or a [data] of its own too.
    """
    if not isinstance(given, Mapping) or not given.get("tasks"):
        return given
    task, tasks = given.get("task"), given["tasks"]
    if task is not None and not (isinstance(task, Mapping) and task.get("kind") == SEVERAL_TASKS):
        raise ValueError("`tasks` and [task] exclude each other; keep one of them")
    if task is None and given.get("data") is not None:
        raise ValueError("`tasks` and [data] exclude each other; put [data] into each task as [tasks.data]")
    first = tasks[0] if isinstance(tasks, list) and tasks and isinstance(tasks[0], Mapping) else {}
    return {**given, "task": {"kind": SEVERAL_TASKS}, "data": first.get("data") or {"train": "missing"}}


def require(spec: StudySpec) -> None:
    """Check what does not go with several tasks.

    Raises:
        ValueError: in one sentence, with what to do.
    """
    if spec.tasks is None:
        if spec.task.kind == SEVERAL_TASKS:
            raise ValueError(f'`kind` "{SEVERAL_TASKS}" is made by `[[tasks]]`; give a table [[tasks]] for each task')
        return
    if len(spec.tasks) < FEWEST:
        raise ValueError(
            f"`tasks` must have at least {FEWEST} entries, but has {len(spec.tasks)}; for one, give [task] and [data]"
        )
    names = [task.name for task in spec.tasks]
    if twice := sorted({name.lower() for name in names if [*map(str.lower, names)].count(name.lower()) > 1}):
        raise ValueError(
            f'`name` of [[tasks]] must be different for each task, but "{twice[0]}" comes twice; rename one'
        )
    taken = {*OTHER_METRICS, *(f"{name}_alone" for name in names)}
    if known := next((name for name in names if name in taken or name.startswith("default_")), ""):
        raise ValueError(
            f'`name` of [[tasks]] must not be "{known}", because the study keeps another metric under that name in '
            "MLflow; rename the task"
        )
    workers, several = spec.search.workers, len(spec.search.devices or ()) > 1
    faults = {
        "`metric` in [validation]": (spec.validation.metric not in (None, GAIN), "set `metric` in each of [[tasks]]"),
        "`candidates` in [model]": (spec.model.candidates is not None, "give one `name_or_path`"),
        "`quantization` in [model]": (spec.model.quantization != "none", 'set it to "none"'),
        "`form` in [winner]": (spec.winner.form != "refit", 'set it to "refit"'),
        "`drop_layers` in [winner]": (spec.winner.drop_layers != 0, "set it to 0"),
        "`warm_start` in [search]": (bool(spec.search.starts), "remove it"),
        "`workers` in [search]": (isinstance(workers, int) and workers > 1, "set it to 1"),
        "`devices` in [search] with more than one GPU": (several, "name one"),
        "`backend` in [search]": (spec.search.backend != LOCAL_BACKEND, "remove it"),
        "`packing` in [validation]": (spec.validation.packing == "on", 'set it to "off"'),
    }
    for setting, (wrong, advice) in faults.items():
        if wrong:
            raise ValueError(f"{setting} does not go with `[[tasks]]`; {advice}")


def alone(spec: StudySpec, task: NamedTask) -> StudySpec:
    """The study of one of the tasks alone, which writes to a folder of its own."""
    return spec.model_copy(
        update={
            "task": TaskSection(kind=task.kind, options=task.options),
            "data": task.data,
            "tasks": None,
            "validation": spec.validation.model_copy(update={"metric": task.metric}),
            "output": spec.output / SINGLE_TASKS / task.name,
        }
    )
