"""Keeps a study's trials: in memory, where the sampler and the pruner read them, and permanently in a file.

The file is an Optuna journal with a line for each change. A trial is one line and takes a millisecond; in Optuna's
SQLite storage it takes some thirty statements and milliseconds.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from autopeft.common.exceptions import StoreError, UserInputError, in_a_line
from autopeft.common.files import remove
from autopeft.study.folder import JOURNAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from optuna.distributions import BaseDistribution
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, TrialState

__all__ = ["JOURNAL", "StudyStorage", "appending", "open_journal", "writing"]


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


class StudyStorage(InMemoryStorage):
    """An Optuna storage that reads from memory and also writes to a study's journal.

    Only one process may write: whoever makes a storage holds the study's lock.

    A trial is written to the journal as a whole when it is queued, when it is `kept` or when it ends, and from then on
    at every change. So a refused proposal costs one write instead of one for each of its params. A trial that a process
    was still drawing when it was killed is lost, and the next start draws it again.

    Args:
        output: the study's folder.

    Raises:
        UserInputError: the file is not a journal.
    """

    def __init__(self, output: Path) -> None:
        super().__init__()
        _repair(output)
        self._journal = open_journal(output)
        self._studies_there: dict[int, int] = {}  # id here → id there
        self._trials_there: dict[int, int] = {}
        for study in self._journal.get_all_studies():
            study_id = super().create_new_study(study.directions, study.study_name)
            self._studies_there[study_id] = study._study_id
            for key, value in study.user_attrs.items():
                super().set_study_user_attr(study_id, key, value)
            for key, value in study.system_attrs.items():
                super().set_study_system_attr(study_id, key, value)
            for trial in self._journal.get_all_trials(study._study_id, deepcopy=False):
                self._trials_there[super().create_new_trial(study_id, trial)] = trial._trial_id

    def keep(self, study_name: str, number: int) -> None:
        """Write a trial to the journal, and every earlier one, so that their numbers are the same there."""
        self._keep(self.get_study_id_from_name(study_name), number)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Make a study, there and here."""
        study_id = super().create_new_study(directions, study_name)
        name = self.get_study_name_from_id(study_id)
        self._studies_there[study_id] = self._journal.create_new_study(directions, name)
        return study_id

    def delete_study(self, study_id: int) -> None:
        """Delete a study, there and here."""
        self._journal.delete_study(self._studies_there.pop(study_id))
        super().delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute, there and here."""
        super().set_study_user_attr(study_id, key, value)
        self._journal.set_study_user_attr(self._studies_there[study_id], key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's own, there and here."""
        super().set_study_system_attr(study_id, key, value)
        self._journal.set_study_system_attr(self._studies_there[study_id], key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Make a trial; it is kept if it is queued or added as it is."""
        trial_id = super().create_new_trial(study_id, template_trial)
        if template_trial is not None:
            self._keep(study_id, self.get_trial_number_from_id(trial_id))
        return trial_id

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Change the state; a trial that ends is kept."""
        changed = super().set_trial_state_values(trial_id, state, values)
        if changed and trial_id in self._trials_there:
            self._journal.set_trial_state_values(self._trials_there[trial_id], state, values)
        elif changed and state.is_finished():
            self._keep(*self._trial_id_to_study_id_and_number[trial_id])
        return changed

    def set_trial_param(self, trial_id: int, param_name: str, value: float, distribution: BaseDistribution) -> None:
        """Set a param; `value` is in Optuna's internal form."""
        super().set_trial_param(trial_id, param_name, value, distribution)
        if trial_id in self._trials_there:
            self._journal.set_trial_param(self._trials_there[trial_id], param_name, value, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the score at a rung."""
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        if trial_id in self._trials_there:
            self._journal.set_trial_intermediate_value(self._trials_there[trial_id], step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute."""
        super().set_trial_user_attr(trial_id, key, value)
        if trial_id in self._trials_there:
            self._journal.set_trial_user_attr(self._trials_there[trial_id], key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's own."""
        super().set_trial_system_attr(trial_id, key, value)
        if trial_id in self._trials_there:
            self._journal.set_trial_system_attr(self._trials_there[trial_id], key, value)

    def _keep(self, study_id: int, number: int) -> None:
        for trial in self.get_all_trials(study_id, deepcopy=False)[: number + 1]:
            if trial._trial_id not in self._trials_there:
                there = self._journal.create_new_trial(self._studies_there[study_id], trial)
                self._trials_there[trial._trial_id] = there


def _repair(output: Path) -> None:
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
