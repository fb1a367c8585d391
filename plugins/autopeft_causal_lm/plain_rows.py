"""Settings of conversations, where rows are plain texts: to these they would do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import SpecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft import Section

OF_CONVERSATIONS = ("template", "system", "learn")
"""Settings under [task]."""


def told(options: Section, plain: Sequence[bool]) -> list[str]:
    """What a user should know of settings of conversations that do not bear on some rows, a sentence each.

    Args:
        options: of the task.
        plain: of each training row, whether it is a text, and no conversation.

    Raises:
        SpecError: they bear on none.
    """
    fields = type(options).model_fields
    given = [name for name in OF_CONVERSATIONS if getattr(options, name) != fields[name].default]
    if not given or not any(plain):
        return []
    named = " and ".join(f"`{name}`" for name in given)
    if all(plain):
        several = len(given) > 1
        raise SpecError(
            f"{named} in [task] {'are settings' if several else 'is a setting'} of conversations, but the rows are "
            f"plain texts, which the model reads as they are; remove {'them' if several else 'it'}, or give the rows "
            "as `messages`, or as lists of messages in `prompt` and `completion`."
        )
    return [
        f"{sum(plain)} of {len(plain)} training rows have plain texts as prompts, which the model reads as they are: "
        f"{named} in [task] bear{'s' * (len(given) == 1)} on conversations alone."
    ]
