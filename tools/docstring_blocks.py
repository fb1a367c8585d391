"""Docstrings as the site shows them, an extension of Griffe: examples of `>>>` as code, attributes as a list.

In Markdown `>>>` would be a quotation within quotations, and "Class attributes:" names no section of Google's style.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from griffe import Extension

if TYPE_CHECKING:
    from griffe import Object

EXAMPLE = re.compile(r"^>>> .*(?:\n\S.*)*", re.MULTILINE)
"""Lines from a prompt up to the next empty one."""


class DocstringBlocks(Extension):
    """What stands in docstrings for readers of the source, written as a page needs it."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the object's docstring, where it has one."""
        if obj.docstring:
            text = obj.docstring.value.replace("Class attributes:\n", "Attributes:\n")
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found.group()}\n```", text)
