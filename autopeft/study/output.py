"""A study's output folder: it holds only that study, one process runs it, and leftovers of a killed one are removed."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from autopeft.common.exceptions import SpecError
from autopeft.common.files import remove, remove_drafts
from autopeft.study import phase
from autopeft.study.folder import HOLDER, LOCK, MARKER, PHASE, PLAN, ROWS, STATES, STUDY_FILE, WINNER, holds_study
from autopeft.study.lock import held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEFORE = {HOLDER, LOCK, MARKER, PHASE, PLAN, ROWS, STATES, STUDY_FILE, "lost+found"}
"""What may be in the folder before its study has begun."""

EARLIER_DRAFTS = re.compile(r"\.winner-[a-z0-9_]{8}|\.report\.html\.draft|result\.draft")
"""Names of drafts by earlier versions."""

SHOWN = 3
"""Number of names that a refusal gives as examples."""


@contextmanager
def taken(output: Path) -> Iterator[None]:
    """Hold a study's output folder, made if it does not exist, and clear away what a killed process left.

    Raises:
        SpecError: the folder holds files but no study.
        StudyError: another process holds it, or another thread of this one.
        StoreError: it cannot be written to.
    """
    require(output)
    with held(output):
        remove_drafts(output, output / ROWS, output / WINNER)
        for path in output.iterdir():
            if EARLIER_DRAFTS.fullmatch(path.name):
                remove(path)
        phase.keep(output, phase.Phase(phase.STARTING))
        try:
            yield
        finally:
            phase.forget(output)


def require(output: Path) -> None:
    """Check that a study may write to a folder: it does not exist, is empty except for hidden files, or holds a study.

    Raises:
        SpecError: none of these, so the study could overwrite somebody's files.
    """
    if not output.is_dir():
        if output.exists():
            raise SpecError(f"`output` must be a folder, but {output} is a file; give another one.")
        return
    others = sorted(path.name for path in output.iterdir() if path.name not in BEFORE and path.name[0] != ".")
    if not others or holds_study(output):  # checked last: a study that begins makes it first
        return
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    raise SpecError(
        f"`output` must be a new or empty folder, or a study's own, but {output} holds "
        f"{', '.join(others[:SHOWN])}{more}, and no study; give another `output`, or move these files away."
    )
