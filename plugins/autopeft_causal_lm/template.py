"""Turns a conversation into the text that a model reads, and finds where in it the assistant speaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from autopeft import SpecError, quoted
from autopeft_causal_lm.template_check import examined
from autopeft_causal_lm.typed_marks import TypedMarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    Message = dict[str, Any]

AUTO, CHAT, PLAIN = "auto", "chat", "plain"
"""Values of `template` other than a Jinja template."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'system': '', 'user': 'User: ', 'assistant': 'Assistant: ', 'tool': 'Tool: '}[message['role']] }}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token or '' }}{% endif %}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For models without a template: each message begins with who speaks."""

SAID = 300
"""Most characters of a template's error that are shown."""


class Rendered(NamedTuple):
    """A row as a text.

    Attributes:
        text: what a model reads.
        answers: where each of the assistant's answers starts and ends, in characters.
        plain: whether no template put marks in it.
        typed: where each piece starts and ends that looks like a mark, but was written by people.
    """

    text: str
    answers: list[tuple[int, int]]
    plain: bool = False
    typed: Sequence[tuple[int, int]] = ()


class ChatTemplate:
    """A tokenizer's template, or another one.

    Args:
        tokenizer: of transformers.
        template: in Jinja's language; "" for the tokenizer's own, or `PLAIN_TEMPLATE` if it has none.

    Attributes:
        source: the template.
        marks: those of the tokenizer and of the template.

    Raises:
        SpecError: the tokenizer brings several templates and names none as its default.
    """

    def __init__(self, tokenizer: Any, template: str = "") -> None:
        self._tokenizer = tokenizer
        self.source = template or _own(tokenizer) or PLAIN_TEMPLATE
        self.marks = TypedMarks(tokenizer, self.source)
        self._seen: dict[tuple[Any, ...], Sequence[str]] = {}

    def beginning_with(self, system: str) -> str:
        """The template, which then puts `system`, unless it is empty, before conversations without a system message."""
        if not system:
            return self.source
        first = f"{{'role': 'system', 'content': {json.dumps(system, ensure_ascii=False)}}}"
        return (
            "{% if messages[0]['role'] != 'system' %}{% set messages = [" + first + "] + messages %}{% endif %}"
        ) + self.source

    def text(self, messages: Sequence[Message], *, asking: bool = False) -> str:
        """The text of a conversation; if `asking`, with what comes before an answer.

        Raises:
            SpecError: the template fails, as some do for roles or an order that they do not know.
            MemoryError: it needs too much memory.
        """
        try:
            found = self._tokenizer.apply_chat_template(
                list(messages), chat_template=self.source, tokenize=False, add_generation_prompt=asking
            )
        except MemoryError:
            raise
        except Exception as error:  # a template may raise anything
            roles = quoted(", ".join(message["role"] for message in messages))
            raise SpecError(
                f"the chat template must take every conversation, but for one with the roles {roles} it fails with: "
                f"{quoted(' '.join(str(error).split()), SAID)}; change these rows, or give another `template` in "
                "[task]."
            ) from None
        return str(found)

    def unread(self, messages: Sequence[Message], *, learnt: Sequence[int] = ()) -> Sequence[str]:
        """The roles whose messages the template leaves out, such as "system", in conversations of that form.

        Args:
            messages: a conversation.
            learnt: the places of its answers that are learnt.

        Raises:
            SpecError: as `examined`.
        """
        form = (*learnt, *((one["role"], bool(one["content"].strip()), "tool_calls" in one) for one in messages))
        if form not in self._seen:
            self._seen[form] = examined(self.text, messages, learnt)
        return self._seen[form]

    def asked(self, messages: Sequence[Message]) -> Rendered:
        """A conversation up to where an answer begins.

        Raises:
            SpecError: as `text` and `unread`.
        """
        self.unread(messages)
        wrapped = self.marks.wrapped(messages)
        text, _, typed = wrapped.freed(self.text(wrapped.messages, asking=True), [])
        return Rendered(text, [], typed=typed)

    def rendered(self, messages: Sequence[Message], *, every: bool) -> Rendered:
        """A conversation that ends with the assistant, with the answers that are learnt: `every` one, or the last.

        An answer begins where the template asks for it and ends with the mark behind it. The mark is learnt too, or a
        model would never end.

        Raises:
            SpecError: the template fails, or prints the beginning of a conversation differently from the whole.
        """
        places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        learnt = places if every else places[-1:]
        self.unread(messages, learnt=learnt)
        wrapped = self.marks.wrapped(messages)
        messages = wrapped.messages
        whole = self.text(messages)
        spans = []
        for place in learnt:
            last = place == places[-1]
            before, behind = (
                self.text(messages[:place], asking=True),
                whole if last else self.text(messages[: place + 1]),
            )
            if not whole.startswith(before) or not whole.startswith(behind):
                advice = 'set `learn = "last"` in [task], or give' if every and not last else "give"
                raise SpecError(
                    "the chat template must print the beginning of a conversation alike whatever follows, to show "
                    f"which tokens are the assistant's, but message {place + 1} of one conversation begins "
                    f"differently; {advice} another `template`."
                )
            spans.append((len(before), len(behind.rstrip())))
        if any(end <= start for start, end in spans):
            raise SpecError(
                "the chat template must print what the assistant says, but in one conversation it prints nothing; "
                "give another `template` in [task]."
            )
        text, answers, typed = wrapped.freed(whole, spans)
        return Rendered(text, answers, typed=typed)


def _own(tokenizer: Any) -> str:
    """The tokenizer's own template; "" if it has none."""
    try:
        return str(tokenizer.get_chat_template()) if tokenizer.chat_template else ""
    except ValueError:
        names = ", ".join(map(quoted, sorted(tokenizer.chat_template)))
        raise SpecError(
            f'a tokenizer with several chat templates must name one of them "default", but this one has {names}; give '
            "one of them as the `template` in [task], in Jinja's language."
        ) from None
