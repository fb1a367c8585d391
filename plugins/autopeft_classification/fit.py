"""How well a table fits texts with labels: one text or two, with one label or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import Fit

if TYPE_CHECKING:
    from autopeft import ColumnProfile, TableProfile

NAMES = ("label", "labels", "class", "category", "target", "sentiment", "queue", "intent", "topic", "tag", "emotion")

FEWEST_FLAGS = 3
"""Fewest columns of 0 and 1 that are taken for a label each."""


def one_label(table: TableProfile) -> Fit | None:
    """A text with one of several labels."""
    label, text = table.label(), table.text()
    if not label or not text or label is text or label.holds not in ("label", "number", "name"):
        return None
    return Fit({"text": text.name, "label": label.name}, _score(table, label), _why(text, label))


def pair(table: TableProfile) -> Fit | None:
    """Two texts that belong together by their names, or that the user named, with one of several labels."""
    first, second = table.pair() or (None, None)
    label = table.label()
    if not first or not second or not label or label.holds not in ("label", "number", "name"):
        return None
    columns = {"text": first.name, "text_pair": second.name, "label": label.name}
    why = f"`{first.name}` and `{second.name}` are texts that belong together, and `{label.name}` holds {label.said}."
    return Fit(columns, min(_score(table, label) + 0.05, 1.0), why)


def several_labels(table: TableProfile) -> Fit | None:
    """A text with any number of labels: a list, a text with a mark between them, or columns of 0 and 1."""
    text, label = table.text(), table.label()
    named = table.among(*NAMES)
    if named and named.holds == "texts" and "label" not in table.named:
        label = named
    if not text:
        return None
    if label and label is not text and (label.holds == "texts" or label.delimiter):
        options = {"delimiter": label.delimiter} if label.delimiter not in ("", ",") else {}
        what = f"several labels a row, with {label.delimiter!r} between" if label.delimiter else "lists of labels"
        why = f"`{label.name}` holds {what}, and `{text.name}` {text.said}."
        return Fit({"text": text.name, "label": label.name}, min(_score(table, label) + 0.05, 1.0), why, options)
    flags = [column.name for column in table.columns if {*column.counts} == {"0", "1"}]
    if len(flags) < FEWEST_FLAGS or "label" in table.named:
        return None
    why = f"{len(flags)} columns hold 0 and 1, a label each, and `{text.name}` holds {text.said}."
    return Fit({"text": text.name}, 0.95, why, {"label_columns": flags})


def _score(table: TableProfile, label: ColumnProfile) -> float:
    if "label" in table.named:
        return 0.9 if label.holds != "number" else 0.3
    if label.holds == "name":
        return 0.0
    return 0.9 if label.name.lower() in NAMES else 0.6


def _why(text: ColumnProfile, label: ColumnProfile) -> str:
    return f"`{text.name}` holds {text.said}, and `{label.name}` {label.said}."
