"""The file in a study's output folder that holds its trials: an Optuna journal with a line for each change.

A trial is one line and takes a millisecond; in a database it takes some thirty statements and milliseconds.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from autopeft.common.exceptions import StoreError, UserInputError, in_a_line
from autopeft.common.files import remove
from autopeft.study.folder import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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


def open_journal(output: Path) -> JournalStorage:
    """The journal in a study's output folder, for reading, also while the study runs.

    Raises:
        UserInputError: there is none, or the file is not a journal.
    """
    path = output / JOURNAL
    if not path.is_file():
        raise UserInputError(f"{output} holds no study; start it with `autopeft run`.")
    try:
        return JournalStorage(_Backend(str(path), JournalFileOpenLock(str(path))))
    except (ValueError, KeyError, TypeError, AssertionError, OSError) as error:
        raise UserInputError(
            f"{path} is not an Optuna journal, or is damaged: {type(error).__name__}: {error}. Restore a copy, or "
            f"remove {output} to start over."
        ) from None


class _Backend(JournalFileBackend):
    """A journal file that contains each change completely or not at all."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines.

        Raises:
            StoreError: they could not be written.
        """
        with appending(self._file_path):
            super().append_logs(logs)


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
