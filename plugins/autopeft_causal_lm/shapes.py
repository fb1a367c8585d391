"""Finds the form of a table's rows by the names of its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Form = Literal["messages", "prompt-completion", "alpaca", "question-answer", "text"]

FORMS: tuple[tuple[Form, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("messages", "conversations", ("messages",), ()),
    ("messages", "conversations", ("conversations",), ()),
    ("prompt-completion", "prompts with completions", ("prompt", "completion"), ()),
    ("alpaca", "instructions with outputs", ("instruction", "output"), ("input", "system")),
    ("question-answer", "questions with answers", ("question", "answer"), ()),
    ("text", "plain texts", ("text",), ()),
)
"""Each form, its name for people, the columns that it has and those that it may have; the first that fits is taken."""


@dataclass(frozen=True)
class Shape:
    """A form that a table has.

    Attributes:
        form: its name.
        columns: the table's columns that it reads.
        left: the table's other columns.
        told: a sentence for the user about what was found.
    """

    form: Form
    columns: tuple[str, ...]
    left: tuple[str, ...]
    told: str


def shape_of(columns: Sequence[str]) -> Shape | None:
    """The form of a table whose rows teach a language model to write; None if no form fits.

    Args:
        columns: the names of the table's columns.
    """
    fitting = [form for form in FORMS if {*form[2]} <= {*columns}]
    if not fitting:
        return None
    (form, called, needed, extra), *others = fitting
    read = (*needed, *(name for name in extra if name in columns))
    told = f"The rows are read as {called}, from {_listed(read)}"
    told += "".join(f", not as {name} from {_listed(names)}" for _, name, names, _ in others)
    return Shape(form, read, tuple(name for name in columns if name not in read), f"{told}.")


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)
