"""Removes the comments from a study file's text: they are private notes and may say anything."""

from __future__ import annotations

import re
import tomllib

STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' r"'''.*?'{3,5}|" r'"(?:\\.|[^"\\\n])*"|' r"'[^'\n]*'|" r"[ \t]*#[^\n]*", re.DOTALL
)


def without_comments(text: str) -> str:
    """A TOML document with the same content; empty if that cannot be guaranteed."""
    plain = STRING_OR_COMMENT.sub(lambda found: "" if found[0].lstrip().startswith("#") else found[0], text)
    try:
        return plain.lstrip("\n") if tomllib.loads(plain) == tomllib.loads(text) else ""
    except (ValueError, RecursionError):
        return ""
