"""Refuses settings of conversations if rows are plain texts, where they would do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft import Section

OF_CONVERSATIONS = ("template", "system", "learn")
"""Settings under [task] that only matter for conversations."""


def told(options: Section, plain: Sequence[bool]) -> list[str]:
    """What a user should know about settings of conversations that do not affect some rows, a sentence each.

    Args:
        options: of the task.
        plain: for each training row, whether it is a text, not a conversation.

    Raises:
        SpecError: they affect no row.
    """
    fields = type(options).model_fields
    given = [name for name in OF_CONVERSATIONS if getattr(options, name) != fields[name].default]
    if not given or not any(plain):
        return []
    named = " and ".join(f"`{name}`" for name in given)
    if all(plain):
        several = len(given) > 1
        raise SpecError(
            f"{named} in [task] {'are settings' if several else 'is a setting'} for conversations, but the rows are "
            f"plain texts, which the model reads as they are; remove {'them' if several else 'it'}, or give the rows "
            "as `messages`, or as lists of messages in `prompt` and `completion`."
        )
    return [
        f"{sum(plain)} of {len(plain)} training rows have plain texts as prompts, which the model reads as they are: "
        f"{named} in [task] affect{'s' * (len(given) == 1)} only conversations."
    ]
