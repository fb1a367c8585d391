"""When a model stops writing a text."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple

from autopeft.common.exceptions import UserInputError, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np


class WritingLimits(NamedTuple):
    """When writing ends.

    Attributes:
        new: most tokens that are written.
        ends: tokens that end a text.
        positions: most tokens of a prompt and the text written after it; in a model with an encoder, those that its
            decoder reads. None if the model has no limit.
        begin: tokens that a decoder after an encoder begins with, such as its start token and a language code; empty if
            prompts are continued.
    """

    new: int
    ends: tuple[int, ...]
    positions: int | None = None
    begin: tuple[int, ...] = ()

    @property
    def room(self) -> tuple[int, int | None]:
        """Most tokens that are written, and most tokens of a prompt; None: all it has."""
        if self.positions is None:
            return self.new, None
        if self.begin:
            return max(1, min(self.new, self.positions - len(self.begin))), None
        new = max(1, min(self.new, self.positions // 2))
        return new, self.positions - new

    def having(self, new: int | None) -> WritingLimits:
        """The same with `new` as the most tokens written; None: unchanged.

        Raises:
            UserInputError: `new` is no whole number, or less than one.
        """
        if new is not None and not isinstance(new, Integral):
            raise UserInputError(f"`max_new_tokens` must be a whole number, but is {shorten(new)}; change it.")
        if new is not None and new < 1:
            raise UserInputError(f"`max_new_tokens` must be at least 1, but is {new}; change it.")
        return self if new is None else self._replace(new=new)

    def told(self, prompts: Sequence[np.ndarray]) -> list[str]:
        """What the user should know about the effect of these limits on prompts, a sentence each."""
        new, most = self.room
        told = []
        if new < self.new:
            bound = (
                "the most that the model's decoder has positions for"
                if self.begin
                else "half of what the model can read"
            )
            told.append(f"Texts have at most {new:,} tokens, {bound}.")
        if most is not None and (long := sum(len(ids) > most for ids in prompts)):
            told.append(
                f"{long} of {len(prompts)} prompts leave no room for {new:,} more tokens within the model's "
                f"{self.positions:,}; only the last {most:,} tokens of each are read."
            )
        return told
