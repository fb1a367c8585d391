"""A study file as it is logged: without its comments, which are notes to oneself."""

from __future__ import annotations

import re
import tomllib

from autopeft.tracking.address import public

TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|(?P<comment>[ \t]*\#[^\n]*)''',
    re.DOTALL,
)
"""A string of TOML, in which a # is no comment, or a comment."""


def without_comments(text: str) -> str | None:
    """The same settings without comments and without secrets in addresses; None where that could not be made sure."""
    short = TOKEN.sub(lambda found: "" if found["comment"] else found[0], text)
    try:
        same = tomllib.loads(short) == tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    return public(re.sub(r"\n{3,}", "\n\n", short).lstrip("\n")) if same and short.strip() else None
