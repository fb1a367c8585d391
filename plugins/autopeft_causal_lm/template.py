"""How a conversation becomes the text that a model reads, and where in it the assistant speaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from autopeft import SpecError
from autopeft_causal_lm.typed_marks import TypedMarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    Message = dict[str, Any]

AUTO, CHAT, PLAIN = "auto", "chat", "plain"
"""Settings of `template` beside a template of Jinja's."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ {'system': '', 'user': 'User: ', 'assistant': 'Assistant: ', 'tool': 'Tool: '}[message['role']] }}"
    "{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token or '' }}{% endif %}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For models that bring no template: who speaks stands before what is said."""


OTHER = "?"
"""What is said besides, to see whether a template prints it."""


class Rendered(NamedTuple):
    """A row as a text.

    Attributes:
        text: what a model reads.
        answers: from which character to which the assistant speaks.
        plain: whether no template put marks in it.
        typed: from which character to which stands what looks like a mark, but is of what people wrote.
    """

    text: str
    answers: list[tuple[int, int]]
    plain: bool = False
    typed: Sequence[tuple[int, int]] = ()


class ChatTemplate:
    """A tokenizer's template, or another.

    Args:
        tokenizer: of transformers.
        template: of Jinja; "" for the tokenizer's own, and where it has none for `PLAIN_TEMPLATE`.

    Attributes:
        source: the template.
    """

    def __init__(self, tokenizer: Any, template: str = "") -> None:
        self._tokenizer = tokenizer
        self._marks = TypedMarks(tokenizer)
        self.source = template or (tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN_TEMPLATE)

    def beginning_with(self, system: str) -> str:
        """The template, putting that before conversations without a system message; where it is empty, as it is."""
        if not system:
            return self.source
        first = f"{{'role': 'system', 'content': {json.dumps(system, ensure_ascii=False)}}}"
        return (
            "{% if messages[0]['role'] != 'system' %}{% set messages = [" + first + "] + messages %}{% endif %}"
        ) + self.source

    def text(self, messages: Sequence[Message], *, asking: bool = False) -> str:
        """The text of a conversation; where it is `asking`, with what comes before an answer.

        Raises:
            SpecError: the template fails, as some do for roles or an order that they do not know.
        """
        try:
            found = self._tokenizer.apply_chat_template(
                list(messages), chat_template=self.source, tokenize=False, add_generation_prompt=asking
            )
        except Exception as error:  # templates raise what they like
            roles = ", ".join(message["role"] for message in messages)
            raise SpecError(
                f"the chat template must take every conversation, but of one with the roles {roles} it says: {error}; "
                "change these rows, or give another `template` in [task]."
            ) from None
        return str(found)

    def asked(self, messages: Sequence[Message]) -> Rendered:
        """A conversation up to where an answer begins.

        Raises:
            SpecError: as `text`.
        """
        wrapped = self._marks.wrapped(messages)
        text, _, typed = wrapped.freed(self.text(wrapped.messages, asking=True), [])
        return Rendered(text, [], typed=typed)

    def rendered(self, messages: Sequence[Message], *, every: bool) -> Rendered:
        """A conversation that ends with the assistant, with the answers that are learnt: `every` one, or the last.

        An answer goes from where the template asks for it to the mark behind it, which is learnt too, or a model would
        never end.

        Raises:
            SpecError: the template fails, or does not say the beginning of a conversation as it says the whole.
        """
        wrapped = self._marks.wrapped(messages)
        messages = wrapped.messages
        whole = self.text(messages)
        places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        spans = []
        for place in places if every else places[-1:]:
            before, behind = self.text(messages[:place], asking=True), self.text(messages[: place + 1])
            if not whole.startswith(before) or not (whole.startswith(behind) or place == places[-1]):
                raise SpecError(
                    "the chat template must say the beginning of a conversation alike whatever follows, so that it can "
                    f"be told which tokens are the assistant's, but message {place + 1} of one begins differently; "
                    'set `learn = "last"` in [task], or give another `template`.'
                )
            end = len(whole) if place == places[-1] else len(behind)
            spans.append((len(before), len(whole[:end].rstrip())))
        other = [*messages[:-1], {**messages[-1], "content": f"{messages[-1]['content']}{OTHER}", "tool_calls": None}]
        if any(end <= start for start, end in spans) or self.text(other) == whole:
            raise SpecError(
                "the chat template must print what the assistant says, but of some conversation it prints nothing; "
                "give another `template` in [task]."
            )
        text, answers, typed = wrapped.freed(whole, spans)
        return Rendered(text, answers, typed=typed)
