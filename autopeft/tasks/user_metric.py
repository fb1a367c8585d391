"""A metric of the user's own: a function in a Python file beside the study file."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import SpecError, brief, in_a_line, shorten
from autopeft.tasks.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from autopeft.tasks.contract import Task

NAME = re.compile(r"[A-Za-z_]\w*:[A-Za-z_]\w*")
FORM = "`metric` in [validation] must be a metric of the kind of task, or `module:function` of a file beside the study"


def is_own(name: str | None) -> bool:
    """Whether that names a function, and no metric of a kind of task."""
    return name is not None and ":" in name


def load(name: str, folder: Path) -> tuple[Callable[[Any, Any], Any], str]:
    """The function of that name, and the SHA-256 of its file.

    Args:
        name: ``module:function``; `module.py` is in the folder.
        folder: of the study file.

    Raises:
        SpecError: there is no such file or function, or the file fails as it runs.
    """
    if not NAME.fullmatch(name):
        raise SpecError(f'{FORM}, but got "{brief(name)}".')
    module, _, function = name.partition(":")
    path = folder / f"{module}.py"
    if not path.is_file():
        raise SpecError(f'{FORM}, but for "{brief(name)}" there is no file {path}.')
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = importlib.util.spec_from_file_location(f"autopeft_user_{module}_{digest[:8]}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:  # a file of the user's may raise anything
        raise SpecError(f"`metric` in [validation]: {path} fails as it is run: {in_a_line(error)}.") from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise SpecError(f"`metric` in [validation]: {path} must have a function `{function}`, but has none.")
    return found, digest


def metric(name: str, function: Callable[[Any, Any], Any], task: Task) -> Metric:
    """The metric that a function stands for: it gets what is true of rows and what was answered, and gives a number."""
    return Metric(lambda answers, truths: math.nan, partial(_call, name, function, task), written=True)


def _call(
    name: str, function: Callable[[Any, Any], Any], task: Task, answers: Sequence[str], truths: Sequence[str]
) -> float:
    true, made = ([task.as_value(text) for text in texts] for texts in (truths, answers))
    try:
        found = function(true, made)
        number = float(found)
    except Exception as error:
        raise SpecError(
            f"`metric` in [validation]: {name} failed on {len(true)} rows: {in_a_line(error)}. It gets two lists, of "
            "what is true of the rows and of what was answered, and returns a number; more is better."
        ) from error
    if not math.isfinite(number):
        raise SpecError(
            f"`metric` in [validation]: {name} must return a finite number, but returned {shorten(found)} for "
            f"{len(true)} rows."
        )
    return number
