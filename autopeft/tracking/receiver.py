"""MLflow as the receiver of an outbox: what its errors mean, and what the user is told about them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from autopeft.common.address import public
from autopeft.study.folder import OUTBOX, REFUSED
from autopeft.tracking.outbox import RefusedError, RetryError
from autopeft.tracking.quiet import forget_active_model
from autopeft.tracking.refusal import Verdict, verdict
from autopeft.tracking.store import first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from autopeft.tracking.backlog import Entry
    from autopeft.tracking.sender import Sender

LONGEST_SHOWN = 60
"""Characters of a damaged line that a message shows."""


class MlflowReceiver:
    """Makes the calls that come from an outbox; see `outbox.Receiver`.

    Args:
        sender: makes a call.
        output: the study's folder, which holds the outbox.
        say: gets a sentence when the store cannot be reached, when it can be again, and when it refuses something.
    """

    def __init__(self, sender: Sender, output: Path, say: Callable[[str], None]) -> None:
        self._sender, self._say = sender, say
        self._outbox, self._aside = output / OUTBOX, output / REFUSED
        self._told: set[str] = set()

    def is_entry(self, found: object) -> bool:
        """A call names what it does, and the key of its run."""
        return isinstance(found, dict) and isinstance(found.get("do"), str) and isinstance(found.get("run"), str)

    def begin(self) -> None:
        """Keep MLflow from adding anything to what this thread sends."""
        forget_active_model()

    def send(self, entry: Entry, *, repeated: bool) -> None:
        """Make a call.

        Raises:
            RefusedError: the store would never take it, or the files to send do not exist.
            RetryError: it may be taken later.
        """
        self._sender.sure = not repeated
        try:
            self._sender.send(**entry)
        except Exception as error:  # stores raise their own: requests', sqlalchemy's, OSError
            found, reason = verdict(error), public(first_line(error))
            if found is Verdict.FINAL:
                raise RefusedError(reason) from error
            raise RetryError(reason, answers=found is Verdict.DOUBTFUL and self._sender.answers()) from error

    def away(self, reason: str) -> None:
        """Say that the store cannot be reached."""
        self._tell(
            f"MLflow cannot be reached: {reason}. The search goes on; what it logs is kept in {self._outbox} "
            "and sent when the store is back."
        )

    def back(self) -> None:
        """Say that the store can be reached."""
        self._tell("MLflow can be reached again.")

    def refused(self, entry: Entry, reason: str) -> None:
        """Say what the store refused, each reason once."""
        if reason not in self._told:
            self._told.add(reason)
            self._tell(
                f"MLflow refused to log something ({entry['do']}): {reason}. It is kept in {self._aside}, and "
                "`autopeft sync` tries it again."
            )

    def damaged(self, number: int, line: str) -> None:
        """Say which line of the outbox is damaged."""
        shown = line if len(line) <= LONGEST_SHOWN else f"{line[:LONGEST_SHOWN]}…"
        self._tell(
            f"Line {number} of {self._outbox} is damaged and cannot be sent to MLflow: {shown!r}. "
            f"It is kept in {self._aside}; the rest is sent."
        )

    def _tell(self, sentence: str) -> None:
        with suppress(Exception):  # a closed stream must not end the sending thread
            self._say(sentence)
