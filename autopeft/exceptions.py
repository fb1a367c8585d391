"""The errors autopeft raises. Each message states the rule, the value that broke it, and what to do next."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


LONGEST_LINE = 400
"""Characters of an error that `in_a_line` keeps."""


class AutopeftError(Exception):
    """Anything autopeft raises on purpose; the command line prints it without a traceback.

    `exit_code` is what the command line returns: 2 where the user's input is wrong, 1 otherwise.
    """

    exit_code = 1


class UserInputError(AutopeftError):
    """The user's file, data, model or arguments break a rule."""

    exit_code = 2


class SpecError(UserInputError):
    """The study file breaks a rule."""


class DataError(UserInputError):
    """The data cannot be read, or its rows break a rule of the task."""


class ModelError(UserInputError):
    """The base model cannot be found, read or used for the task."""


class BudgetError(UserInputError):
    """Nothing in the search space fits the budget."""


class MethodError(UserInputError):
    """A method that the study names is not there, or does not support the model or the task."""


class PluginError(AutopeftError):
    """A plugin broke the contract."""


class HangError(PluginError):
    """A plugin's code did not come back."""


class StudyError(AutopeftError):
    """The search cannot go on, for example because every trial fails for the same reason."""


class StoreError(StudyError):
    """What a study has to keep could not be written, for example because the disk is full."""


class MachineError(StudyError):
    """The machine failed while a method's code ran, and would have with any other's: no memory, no room on the disk.

    Attributes:
        fault: what failed and what to do about it, without a full stop.
    """

    def __init__(self, fault: str) -> None:
        super().__init__(fault)
        self.fault = fault

    def __str__(self) -> str:
        return f"{self.fault}. Then run the same command again: the trials that finished are kept."


class StreamError(AutopeftError):
    """Nobody reads the output any more."""

    def __init__(self, message: str = "nobody reads the output any more.") -> None:
        super().__init__(message)


class OverBudgetError(MemoryError):
    """A step went over the memory budget."""


class HostError(BaseException):
    """An error that no method is to blame for, on its way past all that takes a method's errors: no `Exception`.

    Attributes:
        error: what was raised; `containment.uncontained` raises it again.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(in_a_line(error))
        self.error = error


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to `name`, and all of them when there are few."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known: {', '.join(known)}." if known else "none are known."


def in_a_line(error: BaseException) -> str:
    """An error as one line, not too long: ours as it is, any other behind the name of its kind."""
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}…"
    if isinstance(error, AutopeftError):
        return text
    advice = "; install what the plugin needs" if isinstance(error, ModuleNotFoundError) else ""
    return f"{type(error).__name__}: {text}{advice}"
