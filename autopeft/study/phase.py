"""What a running study is doing, kept in its output folder for `autopeft status`."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from autopeft.common.files import whole
from autopeft.study.folder import PHASE
from autopeft.study.lock import holder

if TYPE_CHECKING:
    from pathlib import Path

STARTING, SEARCHING, CHOOSING, RACING = "starting", "searching", "choosing", "racing"
REFITTING, SCORING, REPORTING = "refitting", "scoring", "reporting"


@dataclass(frozen=True)
class Phase:
    """What a study is doing.

    Attributes:
        name: one of the words above.
        what: which model it is for, such as "the winner"; "" where the name says all.
        ends: about when it ends, in seconds since 1970; None where that is not known.
        latest: whether `ends` is a limit, such as a timeout.
        pid: of the process that is doing it.
    """

    name: str
    what: str = ""
    ends: float | None = None
    latest: bool = False
    pid: int = field(default_factory=os.getpid)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until it ends; None where that is not known."""
        now = time.time()  # noqa: TID251  # to be shown; another process may have written `ends`
        return None if self.ends is None else max(0.0, self.ends - now)

    def __str__(self) -> str:
        return f"{self.name} {self.what}".rstrip()


def keep(output: Path, phase: Phase) -> None:
    """Tell others what the study is doing; a full disk must not end the study because of this."""
    with suppress(OSError), whole(output / PHASE) as draft:
        draft.write_text(json.dumps(asdict(phase)), encoding="utf-8")


def forget(output: Path) -> None:
    """Remove the phase, as the study ends."""
    with suppress(OSError):
        (output / PHASE).unlink(missing_ok=True)


def current(output: Path) -> Phase | None:
    """What the study in a folder is doing; None where nobody runs it, or that is unknown."""
    by = holder(output)
    if by is None:
        return None
    with suppress(OSError, ValueError, TypeError):
        found = Phase(**json.loads((output / PHASE).read_text(encoding="utf-8")))
        if found.pid == by.pid:  # not from a process that was killed
            return found
    return None
