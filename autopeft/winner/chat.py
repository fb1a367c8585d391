"""A conversation with a winner, of which it reads as much as its model can; answers appear as they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from autopeft.common.exceptions import UserInputError
from autopeft.models.growing_text import GrowingText

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.models.sampling import Sampling
    from autopeft.winner.writer import Writer


class Answer(NamedTuple):
    """The text written, and whether Ctrl-C ended it."""

    text: str
    stopped: bool


class Turn(NamedTuple):
    """The user's message and its answer."""

    said: str
    answer: str


class Chat:
    """A conversation with a winner.

    For each message call `ask`, then `answer` for the winner (and for its base model, if wanted), then `keep`.

    Args:
        writer: of the winner.
        sampling: how tokens are chosen.
        say: called with sentences for the user.
        system: the system's message; "" for the study's own.
        max_new_tokens: most tokens of an answer. Default: as many as the training rows need.

    Attributes:
        turns: the turns that the model still reads.

    Raises:
        UserInputError: the winner was not trained on conversations, or it cannot take the system's message.
    """

    def __init__(
        self,
        writer: Writer,
        sampling: Sampling,
        say: Callable[[str], None],
        *,
        system: str = "",
        max_new_tokens: int | None = None,
    ) -> None:
        if not writer.task.converses:
            columns = ", ".join(f"`{name}`" for name in writer.task.inputs)
            raise UserInputError(
                "a chat needs a winner that was trained on conversations, but this one was trained on rows with "
                f"{columns}; give it such rows with `autopeft generate`."
            )
        self._writer, self._sampling, self._say = writer, sampling, say
        self._system = [{"role": "system", "content": system}] if system.strip() else []
        self._limits = writer.task.limits.having(max_new_tokens)
        self._said, self._prompt = "", np.zeros(0, np.int64)
        self.turns: list[Turn] = []
        first = self._row([], "hello")
        writer.prompt(first)  # so that an error of the template shows at once
        self._told = writer.told(first)
        for told in self._told:
            say(told)

    def ask(self, said: str) -> None:
        """Put a message; the oldest turns are dropped until the model can read the rest and has room for an answer.

        Raises:
            UserInputError: the message alone is too long, or is not text.
        """
        new, most = self._limits.room
        turns, dropped = list(self.turns), 0
        for told in self._writer.told(self._row([], said)):
            if told not in self._told:  # notes on the system's message would come each time
                self._say(told)
        prompt = self._writer.prompt(self._row(turns, said))
        while most is not None and len(prompt) > most:
            if not turns:
                raise UserInputError(
                    f"a message must leave room for an answer of {new:,} tokens within the {self._limits.positions:,} "
                    f"that the model can read, but this one has {len(prompt):,} tokens with its chat template; shorten "
                    "it."
                )
            turns.pop(0)
            dropped += 1
            prompt = self._writer.prompt(self._row(turns, said))
        if dropped:
            oldest = "The oldest turn was" if dropped == 1 else f"The {dropped} oldest turns were"
            self._say(
                f"{oldest} dropped, to stay within the {self._limits.positions:,} tokens that the model can read."
            )
        self.turns, self._said, self._prompt = turns, said, prompt

    def answer(self, tell: Callable[[str], None], *, base: bool = False) -> Answer:
        """Have the winner or its base model answer the message; Ctrl-C stops it.

        Args:
            tell: called with each piece of the answer as soon as it is written.
            base: ask the base model.
        """
        text = GrowingText(self._writer.reader.processor, self._limits.ends, tell)
        stopped = False
        try:
            self._writer.stream(self._prompt, self._limits, text, self._sampling, base=base)
        except KeyboardInterrupt:
            stopped = True
            text.end()
        return Answer(text.text.strip(), stopped)

    def keep(self, answer: Answer) -> None:
        """Continue after this answer; a message with an empty answer is taken back."""
        if answer.text:
            self.turns.append(Turn(self._said, answer.text))
        else:
            self._say("The model answered nothing, so the message is taken back.")

    def undo(self) -> Turn | None:
        """Take the last turn back; None where there is none."""
        return self.turns.pop() if self.turns else None

    def reset(self) -> None:
        """Begin anew."""
        self.turns = []

    def _row(self, turns: list[Turn], said: str) -> list[dict[str, str]]:
        """The conversation in the form of a row."""
        row = list(self._system)
        for turn in turns:
            row += [{"role": "user", "content": turn.said}, {"role": "assistant", "content": turn.answer}]
        return [*row, {"role": "user", "content": said}]
