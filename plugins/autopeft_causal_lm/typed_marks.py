"""Finds what looks like a mark of the tokenizer in people's writing: it is text, which begins no turn and ends none.

Special tokens are always marks, and nobody should type one: in a message they are text. Tokens that were added without
being special, such as `<think>` and `<tool_call>`, are marks if the chat template prints them. The assistant writes
these too, so they stay marks in its messages, and in those of the system, whose author runs the model; in messages of
users and tools they are text.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from autopeft_causal_lm.message import Message

    Spans = list[tuple[int, int]]

SIGNS = range(0x100000, 0x10FFFE)
"""Characters for private use that no font or template has: two of them, which a conversation lacks, enclose its
marks."""

TRUSTED = ("assistant", "system")
"""Roles whose messages may have marks that are not special tokens."""


class TypedMarks:
    """Finds a tokenizer's marks, such as `<|im_end|>`, in people's texts.

    Args:
        tokenizer: of transformers.
        template: the chat template, in Jinja's language; "" for none.
    """

    def __init__(self, tokenizer: Any, template: str = "") -> None:
        added = tokenizer.added_tokens_decoder.values()
        special = {*map(str, tokenizer.all_special_tokens), *(token.content for token in added if token.special)}
        printed = _printed(template)
        found = {token.content for token in added if token.content in printed and not token.content.isspace()}
        self._special = _Known(special, ())
        self._every = _Known(special | found, found - special)

    def first_in(self, said: str | Sequence[Message] | None) -> str:
        """The first mark that was typed into a text or into one of the messages; empty if none was."""
        if said is None or isinstance(said, str):
            return self._special.first_in(said or "")
        texts = ((self._of(message["role"]), text) for message in said for text in texts_of(message))
        return next(filter(None, (known.first_in(text) for known, text in texts)), "")

    def wrapped(self, messages: Sequence[Message]) -> Wrapped:
        """Messages with signs around each mark in their texts, and around ends that may become marks."""
        told = json.dumps(messages, ensure_ascii=False)
        free = (sign for sign in map(chr, SIGNS) if sign not in told)
        signs = next(free), next(free)
        made = [
            {
                key: value if key == "role" else self._around(self._of(message["role"]), value, *signs)
                for key, value in message.items()
            }
            for message in messages
        ]
        return Wrapped(made, *signs)

    def _of(self, role: str) -> _Known:
        return self._special if role in TRUSTED else self._every

    def _around(self, known: _Known, value: Any, before: str, behind: str) -> Any:
        if isinstance(value, list):
            return [self._around(known, one, before, behind) for one in value]
        if isinstance(value, dict):
            return {
                self._around(known, key, before, behind): self._around(known, one, before, behind)
                for key, one in value.items()
            }
        return known.around(value, before, behind) if isinstance(value, str) else value


class _Known:
    """Marks that are looked for.

    Args:
        marks: all of them.
        cut: those of them that a tokenizer finds in any text, unless a cut splits them.
    """

    def __init__(self, marks: Collection[str], cut: Collection[str]) -> None:
        known = sorted({*marks} - {""}, key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, known)) or r"\b\B")  # this matches nowhere
        self._cut = {*cut}
        self._begun = {mark[:end] for mark in known for end in range(1, len(mark))}
        self._longest = max(map(len, self._begun), default=0)

    def first_in(self, text: str) -> str:
        found = self._marks.search(text)
        return found[0] if found else ""

    def around(self, text: str, before: str, behind: str) -> str:
        def signed(found: re.Match[str]) -> str:
            parts = (found[0][:1], found[0][1:]) if found[0] in self._cut else (found[0],)
            return "".join(f"{before}{part}{behind}" for part in parts)

        made = self._marks.sub(signed, text)
        for length in range(min(self._longest, len(made)), 0, -1):
            if made[-length:] in self._begun:
                return f"{made[:-length]}{before}{made[-length:]}{behind}"
        return made


def _printed(template: str) -> str:
    """The fixed texts of a template, without its code."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        return "\0".join(text for _, kind, text in Environment().lex(template) if kind in ("data", "string"))
    except TemplateSyntaxError:  # reported as soon as something is rendered
        return ""


class Wrapped(NamedTuple):
    """Messages with signs in them, and the two signs."""

    messages: list[Message]
    before: str
    behind: str

    def freed(self, text: str, spans: Spans) -> tuple[str, Spans, Spans]:
        """A template's text of the messages without signs, with `spans` moved to fit, and the spans between signs."""
        if self.before not in text and self.behind not in text:
            return text, spans, []
        parts, signs, typed = list[str](), list[int](), list[tuple[int, int]]()
        length, opened = 0, None
        for part in re.split(f"([{self.before}{self.behind}])", text):
            if part in (self.before, self.behind):
                signs.append(length + len(signs))
                if part == self.behind and opened is not None and opened < length:
                    typed.append((opened, length))
                opened = length if part == self.before else None
            else:
                parts.append(part)
                length += len(part)
        moved = [(start - bisect_left(signs, start), end - bisect_left(signs, end)) for start, end in spans]
        return "".join(parts), moved, typed


def texts_of(value: Any) -> Iterable[str]:
    """All texts in a message, in a list or a pair of messages, or a text itself."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from texts_of(one)
