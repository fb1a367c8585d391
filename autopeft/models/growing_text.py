"""A text that a model is writing, passed on piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

UNFINISHED = "\ufffd"
"""Stands for bytes that are not a whole character yet."""


class GrowingText:
    """A streamer for transformers' generation: takes tokens, and passes on what they add to the text.

    Args:
        tokenizer: of transformers.
        ends: tokens that end a text and are not part of it.
        tell: gets each piece; white space before the first word is left out.

    Attributes:
        text: the text so far.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int], tell: Callable[[str], None]) -> None:
        self._tokenizer, self._ends, self._tell = tokenizer, set(ends), tell
        self._ids: list[int] = []
        self._told = ""
        self.text = ""

    def put(self, value: torch.Tensor) -> None:
        """Take the next token; the prompt, which comes first and has two dimensions, is not part of the text."""
        if value.ndim > 1:
            return
        self._ids += [token for token in value.tolist() if token not in self._ends]
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self.text = text.lstrip()
        self._tell_more(self.text.rstrip(UNFINISHED))

    def end(self) -> None:
        """Pass on the rest."""
        self._tell_more(self.text)

    def _tell_more(self, text: str) -> None:
        if len(text) > len(self._told) and text.startswith(self._told):
            more, self._told = text[len(self._told) :], text
            self._tell(more)
