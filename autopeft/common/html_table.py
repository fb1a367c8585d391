"""Small HTML tables, which a notebook shows instead of an object's `repr`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LEFT = ' style="text-align: left"'
"""Notebooks align cells to the right, which does not suit sentences."""


def facts(title: str, found: Mapping[str, object]) -> str:
    """A title, and a row with the name and value of each fact; empty ones are left out."""
    rows = [(name, value) for name, value in found.items() if value not in (None, "")]
    cells = "".join(
        f"<tr><th{LEFT}>{escape(name)}</th><td{LEFT}>{escape(str(value))}</td></tr>" for name, value in rows
    )
    return f"<p><strong>{escape(title)}</strong></p><table>{cells}</table>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with headings."""
    head = "".join(f"<th{LEFT}>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td{LEFT}>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
