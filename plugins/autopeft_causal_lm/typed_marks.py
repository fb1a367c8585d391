"""What looks like a mark of the tokenizer's in what people wrote: text, which begins no turn and ends none."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from autopeft_causal_lm.message import Message

    Spans = list[tuple[int, int]]

SIGNS = range(0x100000, 0x10FFFE)
"""Characters for private use that no font or template has: two that a conversation lacks stand around marks in it."""


class TypedMarks:
    """Finds a tokenizer's marks, such as `<|im_end|>`, in texts of people.

    Args:
        tokenizer: of transformers. Tokens that were added to it as text are no marks.
    """

    def __init__(self, tokenizer: Any) -> None:
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        marks = sorted({*map(str, tokenizer.all_special_tokens), *special} - {""}, key=len, reverse=True)
        self._marks = re.compile("|".join(map(re.escape, marks)) or r"\b\B")  # what matches nowhere
        self._begun = {mark[:end] for mark in marks for end in range(1, len(mark))}
        self._longest = max(map(len, self._begun), default=0)

    def first_in(self, texts: Iterable[str]) -> str:
        """The first mark that stands in any of the texts; empty where none does."""
        return next((found[0] for text in texts if (found := self._marks.search(text))), "")

    def wrapped(self, messages: Sequence[Message]) -> Wrapped:
        """Messages with signs around each mark in their texts, and around what may become one with what follows it."""
        told = json.dumps(messages, ensure_ascii=False)
        free = (sign for sign in map(chr, SIGNS) if sign not in told)
        signs = next(free), next(free)
        made = [
            {key: value if key == "role" else self._around(value, *signs) for key, value in message.items()}
            for message in messages
        ]
        return Wrapped(made, *signs)

    def _around(self, value: Any, before: str, behind: str) -> Any:
        if isinstance(value, list):
            return [self._around(one, before, behind) for one in value]
        if isinstance(value, dict):
            return {self._around(key, before, behind): self._around(one, before, behind) for key, one in value.items()}
        if not isinstance(value, str):
            return value
        text = self._marks.sub(lambda found: f"{before}{found[0]}{behind}", value)
        for length in range(min(self._longest, len(text)), 0, -1):
            if text[-length:] in self._begun:
                return f"{text[:-length]}{before}{text[-length:]}{behind}"
        return text


class Wrapped(NamedTuple):
    """Messages with signs in them, and the two signs."""

    messages: list[Message]
    before: str
    behind: str

    def freed(self, text: str, spans: Spans) -> tuple[str, Spans, Spans]:
        """What a template made of the messages, without signs; `spans` of it likewise, and what stood between signs."""
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
    """All texts in a message, in a list or a pair of such, or in a text itself."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from texts_of(one)
