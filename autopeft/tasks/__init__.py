"""Task kinds: one module each in this folder, found by its `TASK`; a new kind is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from autopeft.common.exceptions import SpecError, brief, nearest
from autopeft.tasks.base import Encoded, TaskKind

__all__ = ["Encoded", "TaskKind", "get", "kinds"]


@cache
def kinds() -> dict[str, TaskKind]:
    """Every task kind by its name in study files."""
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return {module.TASK.kind: module.TASK for module in modules if hasattr(module, "TASK")}


def get(kind: str) -> TaskKind:
    """The task kind of that name.

    Raises:
        SpecError: there is none.
    """
    if kind not in kinds():
        raise SpecError(f'`kind` in [task] is "{brief(kind)}", which no task provides; {nearest(kind, kinds())}')
    return kinds()[kind]
