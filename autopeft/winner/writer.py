"""Writes texts with a winner: with its model, or with the base model without the add-on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from autopeft.common.exceptions import UserInputError
from autopeft.models import generation
from autopeft.tasks.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd
    from torch import nn

    from autopeft.models.growing_text import GrowingText
    from autopeft.models.reader import Reader
    from autopeft.models.sampling import Sampling
    from autopeft.models.writing_limits import WritingLimits
    from autopeft.tasks.contract import Task

    Say = Callable[[str], None] | None


@dataclass(frozen=True)
class Writer:
    """Writes texts for rows.

    Attributes:
        task: turns rows into prompts.
        reader: turns rows into tokens.
        read: turns rows into cells, by the rule of training.
        model: the winner's model.
        base: the base model alone; None where it is not known.
    """

    task: Writing
    reader: Reader
    read: Callable[[Any], pd.DataFrame]
    model: nn.Module
    base: nn.Module | None

    @classmethod
    def of(
        cls,
        task: Task,
        reader: Reader,
        read: Callable[[Any], pd.DataFrame],
        model: nn.Module,
        base: nn.Module | None,
    ) -> Self:
        """The writer of a winner.

        Raises:
            UserInputError: its kind of task does not write.
        """
        if not isinstance(task, Writing):
            raise UserInputError(
                f"only a winner that writes texts can generate one, but {task.kind} does not write texts; use "
                "`autopeft predict`, or `predict` in Python."
            )
        return cls(task, reader, read, model, base)

    def write(
        self, rows: Any, say: Say, max_new_tokens: int | None, sampling: Sampling, *, base: bool = False
    ) -> list[str]:
        """A text for each row; see `Winner.write`."""
        model, cells = self._model(base=base), self.read(rows)
        with sampling.seeded():
            found = self.task.write(model, cells, self.reader, say, new=max_new_tokens, **sampling.settings)
        return [*found]

    def prompt(self, row: Any) -> np.ndarray:
        """The tokens of one row's prompt."""
        (found,) = self.task.prompts(self.read([row]), self.reader)
        return found

    def told(self, row: Any) -> list[str]:
        """Sentences for the user about one row."""
        return self.task.told(self.read([row]), self.reader)

    def stream(
        self,
        prompt: np.ndarray,
        limits: WritingLimits,
        text: GrowingText,
        sampling: Sampling,
        *,
        base: bool = False,
    ) -> None:
        """Continue a prompt; `text` gets each token as soon as it is written."""
        with sampling.seeded():
            generation.streamed(
                self._model(base=base), self.reader.processor, prompt, limits, text, **sampling.settings
            )

    def _model(self, *, base: bool) -> nn.Module:
        if not base:
            return self.model
        if self.base is None:
            raise UserInputError("only a winner that was loaded knows its base model; save this one, and load it.")
        return self.base.to(next(self.model.parameters()).device).eval()
