"""Checks the order of turns in a conversation."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from autopeft import CellError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_turns(roles: Sequence[str]) -> None:
    """Refuse an order that chat templates do not know: they would raise errors, or print something else.

    Args:
        roles: of the messages, at least one.

    Raises:
        CellError: a system message is not the first, the next message is not the user's, the user or the assistant
            speaks twice in a row, or a tool speaks unasked.
    """
    if "system" in roles[1:]:
        raise CellError(
            f"has one as message {roles.index('system', 1) + 1}",
            "join it with the first, or give it to the user",
            "have a system message only at the beginning",
        )
    start = 1 if roles[0] == "system" else 0
    if len(roles) == start or roles[start] != "user":
        who = f"message {start + 1} of the {roles[start]}" if len(roles) > start else "nothing"
        raise CellError(
            f"has {who} there",
            "put the question before it, or remove it",
            "begin with the user's message, after the system's if there is one",
        )
    for number, (before, role) in enumerate(itertools.pairwise(roles), 1):
        if before == role and role != "tool":
            raise CellError(
                f"has messages {number} and {number + 1} both of the {role}",
                "join them, or remove one",
                "have alternating turns of the user and the assistant",
            )
        if before == "user" and role == "tool":
            raise CellError(
                f"has message {number + 1} of a tool after the user's",
                "add the assistant's message that calls the tool",
                "have messages of tools after the assistant's",
            )
