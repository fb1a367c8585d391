"""Tries a chat template once, on a conversation whose contents can be found again in the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import SpecError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autopeft_causal_lm.message import Message

    Text = Callable[..., str]

FIRST = 7_300_481
"""Contents of messages in a trial count up from here: digits survive templates that trim or capitalise."""

ADVICE = "give another `template` in [task]"


def examined(text: Text, messages: Sequence[Message], learnt: Sequence[int]) -> list[str]:
    """Try a template with a conversation of the same form.

    Args:
        text: makes a text of messages, with `asking=True` up to where an answer begins.
        messages: a conversation.
        learnt: the places of its answers that are learnt, of which the last ends it; empty if it asks for an answer.

    Returns:
        What it leaves out, each once: messages of "system", "assistant" or "tool", or "tool_calls".

    Raises:
        SpecError: it leaves out the user's messages or answers that are learnt, the mark behind an answer, or the
            beginning of an answer that is asked for; or it prints something else each time.
    """
    tried = [
        {**one, "content": str(FIRST + place)} if one["content"].strip() else one for place, one in enumerate(messages)
    ]
    asking = not learnt
    whole = text(tried, asking=asking)
    if whole != text(tried, asking=asking):
        raise _failed("print the same for the same conversation", "it prints something else each time")
    missing = []
    for place, one in enumerate(tried):
        if one is not messages[place] and one["content"] not in whole:
            missing.append((place, one["role"]))
        if "tool_calls" in one and _lacks_calls(text, tried, place, whole, asking=asking):
            missing.append((place, "tool_calls"))
    for place, what in sorted(missing, key=lambda one: one[0] not in learnt):
        if what == "user" or place in learnt:
            who = {"tool_calls": "the tool calls that are learnt", "user": "what the user says"}
            raise _failed(
                f"print {who.get(what, 'what the assistant says')}",
                f"it prints nothing of message {place + 1} of one conversation",
            )
    if learnt and tried[-1]["content"].strip():
        _check_ends(text, tried, whole)
    return [*dict.fromkeys(what for _, what in missing)]


def _lacks_calls(text: Text, tried: Sequence[Message], place: int, whole: str, *, asking: bool) -> bool:
    """Whether the text is the same without that message's calls; a template that fails without them reads them."""
    bare = {key: value for key, value in tried[place].items() if key != "tool_calls"}
    try:
        return text([*tried[:place], bare, *tried[place + 1 :]], asking=asking) == whole
    except SpecError:
        return False


def _check_ends(text: Text, tried: Sequence[Message], whole: str) -> None:
    """Make sure that something follows the last answer, and that its heading is printed when it is asked for."""
    start = whole.rfind(tried[-1]["content"])
    if "tool_calls" not in tried[-1] and not whole[start + len(tried[-1]["content"]) :].strip():
        raise _failed(
            "print a mark behind an answer, from which the model learns to end",
            "it prints nothing there",
            "add one such as {{ eos_token }}, or give another `template` in [task]",
        )
    before = text(tried[:-1], asking=True)
    heading = whole[len(before) : start].strip()
    if whole.startswith(before) and heading and before == text(tried[:-1]):
        raise _failed(
            "print the heading of an answer if `add_generation_prompt` is set",
            f"it prints {quoted(heading)} only with the answer",
            "add {% if add_generation_prompt %}…{% endif %}, or " + ADVICE,
        )


def _failed(rule: str, found: str, advice: str = ADVICE) -> SpecError:
    return SpecError(f"the chat template must {rule}, but {found}; {advice}.")
