"""Finds the right choice that a label names by number, letter, text or name."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from autopeft import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

SHOWN = 60
"""Most characters of a label that a message repeats."""


class Choice(NamedTuple):
    """The choices of a row: their texts, and their names if they have any."""

    texts: Sequence[str]
    names: Sequence[str]


def _counted(first: int) -> Callable[[str, Choice], int | None]:
    """Find it by a whole number; the first choice is `first`."""

    def find(label: str, row: Choice) -> int | None:
        if not (label.isascii() and label.isdigit() and len(label) < 10):
            return None
        return place if 0 <= (place := int(label) - first) < len(row.texts) else None

    return find


def _lettered(label: str, row: Choice) -> int | None:
    """Find it by a letter, A for the first."""
    place = ord(label.upper()) - ord("A") if len(label) == 1 and label.isascii() else -1
    return place if 0 <= place < min(len(row.texts), 26) else None


def _one_of(label: str, known: Sequence[str]) -> int | None:
    """The place of the only one that equals the label; None if none or several do."""
    found = [place for place, one in enumerate(known) if one.strip() == label]
    return found[0] if len(found) == 1 else None


class Form(NamedTuple):
    """A form of labels: in words, and a function for the place, from 0, that a label means in its row, or None."""

    told: str
    place: Callable[[str, Choice], int | None]


FORMS: Mapping[str, Form] = {
    "name": Form("the name of the right choice", lambda label, row: _one_of(label, row.names)),
    "number": Form("the number of the right choice, counted from 0", _counted(0)),
    "number_from_1": Form("the number of the right choice, counted from 1", _counted(1)),
    "letter": Form("the letter of the right choice, A for the first", _lettered),
    "text": Form("the text of the right choice", lambda label, row: _one_of(label, row.texts)),
}
"""The forms, in the order in which they are tried."""


def form_of(labels: pd.Series, rows: Sequence[Choice], asked: str | None) -> str:
    """The form of the labels: the one that was asked for, else the first that fits all labels, or the most.

    Args:
        labels: of the rows.
        rows: their choices.
        asked: the form that the study names, if any.
    """
    if asked:
        return asked
    fitting = {form: sum(_place(form, *one) is not None for one in zip(labels, rows, strict=True)) for form in FORMS}
    return max(fitting, key=lambda form: fitting[form])  # the first of equal ones


def places(labels: pd.Series, rows: Sequence[Choice], form: str, source: str) -> list[int]:
    """The place of the right choice of each row, from 0.

    Raises:
        DataError: a label means no choice of its row, or several.
    """
    found = [_place(form, *one) for one in zip(labels, rows, strict=True)]
    wrong = [at for at, place in enumerate(found) if place is None]
    if wrong:
        label, row = labels.iloc[wrong[0]], rows[wrong[0]]
        raise DataError(
            f'{source}, row {labels.index[wrong[0]]}: the label must be {FORMS[form].told}, but "{_short(label)}" is '
            f"{_why(form, label, row)} (such rows: {len(wrong)}). Correct or remove these rows, or set `labels_are` in "
            f"[task] to what labels are ({', '.join(FORMS)})."
        )
    return [place for place in found if place is not None]


def _place(form: str, label: str, row: Choice) -> int | None:
    return FORMS[form].place(label.strip(), row)


def _why(form: str, label: str, row: Choice) -> str:
    if form in ("name", "text"):
        known = row.names if form == "name" else row.texts
        same = sum(one.strip() == label.strip() for one in known)
        return f"that of {same} of its {len(known)} choices" if known else "not a name, as its choices have none"
    return f"none of its {len(row.texts)} choices"


def _short(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= SHOWN else f"{plain[:SHOWN]}…"
