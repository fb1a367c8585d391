"""What the columns of answers are called beside those of the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

PREFIX = "predicted_"
"""Before the names of all answers where one of them is the name of an input's column."""


class AnswerNames:
    """Gives answers their names: the same for all rows.

    Args:
        kept: columns of the input.
        say: told where names are changed.
    """

    def __init__(self, kept: Collection[str], say: Callable[[str], None]) -> None:
        self._kept, self._say = {*kept}, say
        self._prefix: str | None = None

    def of(self, answers: Sequence[str]) -> dict[str, str]:
        """The name of each answer's column.

        Raises:
            UserInputError: the input has columns of these names too.
        """
        if self._prefix is None:
            taken = [name for name in answers if name in self._kept]
            self._prefix = PREFIX if taken else ""
            if taken:
                columns = " and ".join(f"`{PREFIX}{name}`" for name in answers)
                self._say(f"The input already has a column `{taken[0]}`, so the answers are in {columns}.")
        names = {name: f"{self._prefix}{name}" for name in answers}
        for name in names.values():
            if name in self._kept:
                raise UserInputError(
                    f"answers go into new columns, but the input already has {quoted(name)}; rename or remove that "
                    "column."
                )
        return names
