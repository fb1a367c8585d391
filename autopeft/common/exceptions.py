"""The errors autopeft raises. Each message states the rule, the value that broke it, and what to do next."""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from datetime import date, time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


LONGEST_LINE = 400
"""Number of characters of an error that `in_a_line` keeps."""

SHOWN, SHOWN_PATH = 80, 300
"""Number of characters of a user's value, and of a path, that a message repeats."""

NAMES = 50
"""Number of known names that a hint lists."""

ADDRESS = re.compile(r"://[^\s'\"]+")
"""What follows the scheme of an address."""

OBEYED = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Characters that are not text: C0 and C1 controls, line ends, overrides of the direction, halves of a pair."""


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


class TrackingError(UserInputError):
    """The tracking store cannot be used."""


class MethodError(UserInputError):
    """A method that the study names is not installed, or does not support the model or the task."""


class PluginError(AutopeftError):
    """A plugin broke the contract."""


class HangError(PluginError):
    """A plugin's code did not return."""


class StudyError(AutopeftError):
    """The search cannot go on, for example because every trial fails for the same reason."""


class StoreError(StudyError):
    """A study's files could not be written, for example because the disk is full."""


class MachineError(StudyError):
    """The machine failed while a method's code ran, through no fault of the method: no memory, no room on the disk.

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
    """An error that is not a method's fault. It is no `Exception`, so that no handler of a method's errors catches it.

    Attributes:
        error: what was raised; `containment.unguarded` raises it again.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(in_a_line(error))
        self.error = error


def shorten(value: object, width: int = SHOWN) -> str:
    """A value for a message, as Python writes it: cut to about `width` characters, in one line, printable.

    What a terminal would obey, such as an escape sequence, is escaped. Only the scheme of an address is shown, as it
    may hold a password. It works for any value, however deep its lists and however many digits its numbers have.
    """
    if isinstance(value, str):
        text = repr(ADDRESS.sub("://…", value[: 4 * width])[:width])
        return text if len(value) <= width else f"{text[:-1]}…{text[-1]}"
    if isinstance(value, int) and abs(value).bit_length() > 4 * width:  # Python refuses to write 5,000 digits
        return f"a number of about {int(abs(value).bit_length() * 0.30103) + 1} digits"
    form = reprlib.Repr()
    form.maxstring = form.maxother = form.maxlong = width
    try:
        text = str(value) if isinstance(value, date | time) else form.repr(value)  # TOML has dates and times of day
    except Exception:  # a value's own repr may raise anything, and so may one inside of it
        text = f"a value of type {type(value).__name__}"
    text = ADDRESS.sub("://…", printable(" ".join(text.split())))
    return text if len(text) <= width else f"{text[:width]}…"


def brief(name: object, width: int = SHOWN) -> str:
    """A name that a message puts between its own quotes: `shorten` without quotes. A path keeps its end too."""
    width = max(width, SHOWN_PATH) if isinstance(name, os.PathLike) else width
    text = str(name) if isinstance(name, str | os.PathLike) else shorten(name, width)
    return ADDRESS.sub("://…", printable(text if len(text) <= width else f"{text[:width]}…", keep=""))


def printable(text: str, keep: str = "\n") -> str:
    """`text` with all characters escaped that a terminal would obey: controls, and overrides of the direction.

    Args:
        text: from a person, a file or a plugin.
        keep: characters that stay as they are.
    """
    return OBEYED.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def quoted(text: str, width: int = SHOWN) -> str:
    """A user's text in double quotes, printable, cut to about `width` characters."""
    return f'"{brief(text, width)}"'


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint with the known word nearest to `name`, and with all known words if there are few."""
    known = sorted({printable(word[:SHOWN], keep="") for word in known})  # a file's names may be of any length
    close = difflib.get_close_matches(name[:SHOWN], known, n=1, cutoff=0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    more = f", … ({len(known)} in all)" if len(known) > NAMES else ""
    return f"known: {', '.join(known[:NAMES])}{more}." if known else "none are known."


def in_a_line(error: BaseException) -> str:
    """An error as one line, not too long: our own as it is, any other after the name of its type."""
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}…"
    if isinstance(error, AutopeftError):
        return text
    advice = "; install what the plugin needs" if isinstance(error, ModuleNotFoundError) else ""
    return f"{type(error).__name__}: {text}{advice}"
