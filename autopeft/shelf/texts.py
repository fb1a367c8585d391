"""Texts that a winner writes, with what servers tell of each: how many tokens it has, and why it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from autopeft.common.exceptions import DataError
from autopeft.models import generation
from autopeft.models.sampling import Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.winner.winner import Winner


GREEDY = Sampling()
"""The most probable token each time."""


@dataclass(frozen=True)
class Text:
    """A text that was written.

    Attributes:
        text: without special tokens.
        prompt_tokens: tokens of its prompt.
        tokens: tokens written, without the one that ends a text.
        ended: whether the model ended it; else it has as many tokens as were allowed.
    """

    text: str
    prompt_tokens: int
    tokens: int
    ended: bool


@dataclass(frozen=True)
class Prompts:
    """Rows for which a winner writes texts.

    Attributes:
        winner: its name.
        cells: the rows, checked.
        new: most tokens of a text; None: as many as the training rows need.
        sampling: how tokens are chosen.
    """

    winner: str
    cells: pd.DataFrame
    new: int | None = None
    sampling: Sampling = GREEDY

    def alike(self, other: Prompts) -> bool:
        """Whether both can be written side by side, and each text is what it would be alone."""
        same = (self.winner, self.new, self.sampling) == (other.winner, other.new, other.sampling)
        return same and not self.sampling.temperature


def write(winner: Winner, prompts: Sequence[Prompts]) -> list[list[Text]]:
    """The texts of each of some prompts, all of them `alike`.

    Raises:
        DataError: a prompt leaves no room for a text.
        UserInputError: the winner does not write, or a number is out of its range.
    """
    task, reader, first = winner.writer.task, winner.reader, prompts[0]
    cells = pd.concat([one.cells for one in prompts], ignore_index=True) if len(prompts) > 1 else first.cells
    read, limits = task.prompts(cells, reader), task.limits.having(first.new)
    new, most = limits.room
    if (long := max(map(len, read))) > (most or long):
        raise DataError(
            f"a prompt must leave room for {new:,} more tokens within the {limits.positions:,} that the model can "
            f"read, but this one has {long:,} tokens; shorten it, or ask for fewer tokens."
        )
    with first.sampling.seeded():
        made = generation.written(winner.module, winner.processor, read, limits, **first.sampling.settings)
    texts = iter(
        [
            Text(text, len(prompt), len(ids), len(ids) < new)
            for text, prompt, ids in zip(
                winner.processor.batch_decode(made, skip_special_tokens=True), read, made, strict=True
            )
        ]
    )
    return [[next(texts) for _ in range(len(one.cells))] for one in prompts]
