"""The user's own metric: a function in a Python file beside the study file."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft.common.exceptions import SpecError, in_a_line, shorten
from autopeft.tasks import user_function
from autopeft.tasks.metric import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from autopeft.tasks.contract import Task

SETTING = "`metric` in [validation]"


def is_own(name: str | None) -> bool:
    """Whether that is the name of a function, not of a metric of a kind of task."""
    return name is not None and ":" in name


def load(name: str, folder: Path) -> tuple[Callable[[Any, Any], Any], str]:
    """The function of that name, and the SHA-256 of its file; see `user_function.load`."""
    return user_function.load(name, folder, SETTING, "a metric of the kind of task")


def metric(name: str, function: Callable[[Any, Any], Any], task: Task) -> Metric:
    """A metric made from a function that gets the truths and the answers of rows and returns a number."""
    call = partial(_call, name, function, task)
    return Metric(
        lambda answers, truths: math.nan,
        call,
        written=True,
        of_rows=lambda answers, truths: np.asarray(call(answers, truths)),
    )


def _call(
    name: str, function: Callable[[Any, Any], Any], task: Task, answers: Sequence[str], truths: Sequence[str]
) -> float:
    true, made = ([task.as_value(text) for text in texts] for texts in (truths, answers))
    try:
        found = function(true, made)
        number = float(found)
    except Exception as error:
        raise SpecError(
            f"{SETTING}: {name} failed on {len(true)} rows: {in_a_line(error)}. It gets two lists, the truths of the "
            "rows and the answers, and returns a number; higher is better."
        ) from error
    if not math.isfinite(number):
        raise SpecError(
            f"{SETTING}: {name} must return a finite number, but returned {shorten(found)} for {len(true)} rows."
        )
    return number
