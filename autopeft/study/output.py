"""A study's output folder: nobody else's, run by one process, and without what a killed one left half done."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from autopeft.common.exceptions import SpecError
from autopeft.common.files import remove, remove_drafts
from autopeft.study import phase
from autopeft.study.folder import HOLDER, JOURNAL, LOCK, MARKER, PHASE, PLAN, ROWS, STATES, STUDY_FILE, WINNER
from autopeft.study.lock import held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEFORE = {HOLDER, LOCK, MARKER, PHASE, PLAN, ROWS, STATES, STUDY_FILE, "lost+found"}
"""What may be in the folder before its study has a journal."""

EARLIER_DRAFTS = re.compile(r"\.winner-[a-z0-9_]{8}|\.report\.html\.draft|result\.draft")
"""Names of the drafts of versions that named each in its own way."""

SHOWN = 3
"""Names that a refusal gives as examples."""


@contextmanager
def taken(output: Path) -> Iterator[None]:
    """Hold a study's output folder, which is made if it is not there, and clear away what a killed process left.

    Raises:
        SpecError: the folder holds files and no study.
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
    """See that a study may write to a folder: it is not there, or empty but for hidden files, or holds a study.

    Raises:
        SpecError: neither; then files of that name could be somebody's.
    """
    if not output.is_dir():
        if output.exists():
            raise SpecError(f"`output` must be a folder, but {output} is a file; give another one.")
        return
    others = sorted(path.name for path in output.iterdir() if path.name not in BEFORE and path.name[0] != ".")
    if not others or (output / JOURNAL).exists():  # looked at last: a study that begins makes it first
        return
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    raise SpecError(
        f"`output` must be a new or empty folder, or a study's own, but {output} holds "
        f"{', '.join(others[:SHOWN])}{more}, and no study; give another `output`, or move these files away."
    )
