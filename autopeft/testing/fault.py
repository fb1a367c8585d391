"""Where a fault is: the line of the plugin's own files that an error went through, or its class."""

from __future__ import annotations

import inspect
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from autopeft.common.paths import near
from autopeft.testing.rule import BrokenRuleError


@dataclass(frozen=True)
class Fault:
    """A place in a plugin's files.

    Attributes:
        place: file and line, the file relative to the current folder; "" if there is no file.
        trace: the whole traceback, as Python writes it; "" if only the rule itself raised an error.
    """

    place: str = ""
    trace: str = ""


def fault_of(tested: object, error: BaseException) -> Fault:
    """Where an error of a rule came from: its deepest line in the plugin's files, else the class.

    Args:
        tested: the method, or the kind of task.
        error: what the test raised; if a rule broke, the cause of that error counts.
    """
    raised = error.__cause__ if isinstance(error, BrokenRuleError) else error
    home = _home(type(tested))
    frames = traceback.extract_tb(raised.__traceback__) if raised else []
    own = [frame for frame in frames if home and Path(frame.filename).is_relative_to(home)]
    trace = "".join(traceback.format_exception(raised)) if raised else ""
    if own:
        return Fault(f"{near(Path(own[-1].filename))}:{own[-1].lineno}, in {own[-1].name}()", trace)
    return Fault(_class(type(tested)), trace)


def _home(kind: type) -> Path | None:
    """The folder of the package that a class is in, or its file if it is in no package."""
    module = sys.modules.get(kind.__module__)
    package = sys.modules.get(kind.__module__.partition(".")[0])
    paths = list(getattr(package, "__path__", ()))
    path = paths[0] if paths else getattr(module, "__file__", None)
    return Path(path) if path else None


def _class(kind: type) -> str:
    """Where a class begins."""
    try:
        _, line = inspect.getsourcelines(kind)
        return f"{near(Path(inspect.getfile(kind)))}:{line}, class {kind.__name__}"
    except (OSError, TypeError):  # typed in at a prompt
        return ""
