"""The file in a study's output folder that holds its trials: an Optuna journal with a line for each change.

A trial is one line and takes a millisecond; in a database it takes some twenty statements and milliseconds.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import get_lock_file

from autopeft.common.exceptions import StoreError, UserInputError, in_a_line
from autopeft.common.files import remove
from autopeft.study.folder import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TRIAL, RUNG = "trial_id", "intermediate_value"
"""Keys of a line that changes a trial, and of one that adds a score at a rung."""


@contextmanager
def writing(path: Path | str, *kinds: type[Exception]) -> Iterator[None]:
    """Put this around writing a study's files; `kinds` are errors of the writer besides OSError.

    Raises:
        StoreError: it could not be written.
    """
    expected: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except expected as error:
        raise StoreError(
            f"{path} could not be written: {in_a_line(error)}. Fix that (make room if the disk is full), and run the "
            "same command again: the trials that finished are kept."
        ) from error


@contextmanager
def appending(path: Path | str) -> Iterator[None]:
    """Append to an existing file, completely or not at all: the next line would be added to half a line.

    Raises:
        StoreError: it could not be written.
    """
    with writing(path):
        before = os.path.getsize(path)
        try:
            yield
        except OSError:
            os.truncate(path, before)
            raise


def open_journal(output: Path) -> Journal:
    """The journal in a study's output folder, for reading, also while the study runs.

    Raises:
        UserInputError: there is none, or the file is not a journal.
    """
    path = output / JOURNAL
    if not path.is_file():
        raise UserInputError(f"{output} holds no study; start it with `autopeft run`.")
    try:
        return Journal(path)
    except (ValueError, KeyError, TypeError, AssertionError, OSError) as error:
        raise UserInputError(
            f"{path} is not an Optuna journal, or is damaged: {type(error).__name__}: {error}. Restore a copy, or "
            f"remove {output} to start over."
        ) from None


class Journal(JournalStorage):
    """A journal file that contains each change completely or not at all.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = _Backend(str(path), JournalFileOpenLock(str(path)))
        super().__init__(self._file)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what the block changes of trials in one go.

        Raises:
            StoreError: it could not be written.
        """
        held = list[dict[str, Any]]()
        self._file.held = held
        try:
            yield
        finally:
            self._file.held = None
        if held:
            self._file.append_logs(held)


class _Backend(JournalFileBackend):
    """Its file.

    Attributes:
        held: lines about trials that are to be written with a later one; None where each is written at once.
    """

    held: list[dict[str, Any]] | None = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines.

        A power cut may take the scores at rungs that were added since the last other line: their trial then goes on
        from its checkpoint, and has them again.

        Raises:
            StoreError: they could not be written.
        """
        if self.held is not None:
            self.held += logs
            if all(TRIAL in log for log in logs):
                return
            logs = [*self.held]
            self.held.clear()
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with appending(self._file_path), get_lock_file(self._lock), open(self._file_path, "ab") as file:
            file.write(lines.encode())
            file.flush()
            if any(RUNG not in log for log in logs):
                os.fsync(file.fileno())


def repair(output: Path) -> None:
    """Begin the journal, or remove what a process left that was killed while writing: half a line, and locks.

    The next line would be added to the half line, and would wait half a minute for the locks.
    """
    path = output / JOURNAL
    path.touch()
    for lock in (path.with_name(f"{JOURNAL}.lock"), *output.glob(f"{JOURNAL}.lock*.rename")):
        remove(lock)
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        os.truncate(path, whole)
