"""What a chat template makes of a conversation, tried once with contents that can be found again in its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft import SpecError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autopeft_causal_lm.message import Message

    Text = Callable[..., str]

FIRST = 7_300_481
"""What messages say in a trial, counted from here: digits, which a template that trims or capitalises leaves alone."""

ADVICE = "give another `template` in [task]"


def examined(text: Text, messages: Sequence[Message], learnt: Sequence[int]) -> list[str]:
    """Try a template with a conversation of the same form.

    Args:
        text: makes a text of messages, with `asking=True` up to where an answer begins.
        messages: a conversation.
        learnt: the places of its answers that are learnt, the last of which ends it; none where one is asked for.

    Returns:
        Whose messages it prints nothing of, each once: "system", "assistant", "tool", or "tool_calls".

    Raises:
        SpecError: it prints nothing of the user's messages or of answers that are learnt, no mark behind an answer or
            no beginning of one where it is asked for; or it says something else each time.
    """
    tried = [
        {**one, "content": str(FIRST + place)} if one["content"].strip() else one for place, one in enumerate(messages)
    ]
    asking = not learnt
    whole = text(tried, asking=asking)
    if whole != text(tried, asking=asking):
        raise _failed("say the same of the same conversation", "it says something else each time")
    missing = []
    for place, one in enumerate(tried):
        if one is not messages[place] and one["content"] not in whole:
            missing.append((place, one["role"]))
        if "tool_calls" in one and _lacks_calls(text, tried, place, whole, asking=asking):
            missing.append((place, "tool_calls"))
    for place, what in sorted(missing, key=lambda one: one[0] not in learnt):
        if what == "user" or place in learnt:
            who = {"tool_calls": "the calls of tools that are learnt", "user": "what the user says"}
            raise _failed(
                f"print {who.get(what, 'what the assistant says')}",
                f"of message {place + 1} of some conversation it prints nothing",
            )
    if learnt and tried[-1]["content"].strip():
        _check_ends(text, tried, whole)
    return [*dict.fromkeys(what for _, what in missing)]


def _lacks_calls(text: Text, tried: Sequence[Message], place: int, whole: str, *, asking: bool) -> bool:
    """Whether the text is the same without the calls of that message; a template that fails without them reads them."""
    bare = {key: value for key, value in tried[place].items() if key != "tool_calls"}
    try:
        return text([*tried[:place], bare, *tried[place + 1 :]], asking=asking) == whole
    except SpecError:
        return False


def _check_ends(text: Text, tried: Sequence[Message], whole: str) -> None:
    """Something stands behind the last answer, and what stands before it is printed where it is asked for."""
    start = whole.rfind(tried[-1]["content"])
    if "tool_calls" not in tried[-1] and not whole[start + len(tried[-1]["content"]) :].strip():
        raise _failed(
            "print a mark behind an answer, by which the model learns to end",
            "it prints nothing there",
            "add one such as {{ eos_token }}, or give another `template` in [task]",
        )
    before = text(tried[:-1], asking=True)
    heading = whole[len(before) : start].strip()
    if whole.startswith(before) and heading and before == text(tried[:-1]):
        raise _failed(
            "print what stands before an answer where `add_generation_prompt` is set",
            f"it prints {quoted(heading)} with the answer alone",
            "add {% if add_generation_prompt %}…{% endif %}, or " + ADVICE,
        )


def _failed(rule: str, found: str, advice: str = ADVICE) -> SpecError:
    return SpecError(f"the chat template must {rule}, but {found}; {advice}.")
