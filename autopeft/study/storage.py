"""Keeps a study's trials: in memory, where the sampler and the pruner read them, and in a file or a database for good.

Everybody else opens the study that is kept (`open_study`).
"""

from __future__ import annotations

import copy
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import InMemoryStorage

from autopeft.common.address import public
from autopeft.common.exceptions import SpecError
from autopeft.study.database import Database, Entry, open_database, reaching
from autopeft.study.folder import JOURNAL
from autopeft.study.journal import open_journal, repair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from optuna.distributions import BaseDistribution
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, TrialState

    from autopeft.study.journal import Journal

CONSTRAINT, CONSTRAINTS = "constraints:", "constraints"
"""How the system attributes of a trial begin that hold its constraints; and an earlier Optuna's only such attribute,
from which optuna-dashboard still reads whether a trial is feasible. It is kept for that alone."""


def open_study(output: Path, url: str | None = None) -> optuna.Study | None:
    """The study of an output folder as it is kept, for reading, also while it runs; None where it has not begun.

    Args:
        output: the folder.
        url: of its database, if that may have moved since the folder noted where it is.

    Raises:
        UserInputError: there is none, or what is kept is damaged.
        StoreError: the database cannot be reached.
    """
    entry = Entry.of(output)
    if entry:
        entry = replace(entry, url=url or entry.url)
        database = open_database(entry.url)
        known = entry.find(database) is not None
        with reaching(entry.url):
            return optuna.load_study(study_name=entry.name, storage=database) if known else None
    journal = open_journal(output)
    names = optuna.get_all_study_names(journal)
    return optuna.load_study(study_name=names[0], storage=journal) if names else None


class StudyStorage(InMemoryStorage):
    """An Optuna storage that reads from memory and also writes to a study's journal, or to a database.

    Only one process may write: whoever makes a storage holds the study's lock.

    A trial is written there as a whole when it is queued, when it is `kept` or when it ends, and from then on
    at every change. So a refused proposal costs one write instead of one for each of its params. A trial that a process
    was still drawing when it was killed is lost, and the next start draws it again.

    Args:
        output: the study's folder.
        url: of the database; None: the journal.

    Raises:
        UserInputError: the file is not a journal, or the study was begun elsewhere.
        StoreError: the database cannot be reached.
    """

    def __init__(self, output: Path, url: str | None = None) -> None:
        super().__init__()
        self._reaching: Callable[[], AbstractContextManager[None]] = (lambda: reaching(url)) if url else nullcontext
        self._studies_there: dict[int, int] = {}  # id here → id there
        self._trials_there: dict[int, int] = {}
        self._kept: dict[int, int] = {}  # how many of a study's trials are there: always the first ones
        with self._reaching():
            self._there, kept = _store(output, url)
            for there in kept:
                self._load(there)

    def _load(self, there: int) -> None:
        store = self._there
        study_id = super().create_new_study(store.get_study_directions(there), store.get_study_name_from_id(there))
        self._studies_there[study_id] = there
        for key, value in store.get_study_user_attrs(there).items():
            super().set_study_user_attr(study_id, key, value)
        for key, value in store.get_study_system_attrs(there).items():
            super().set_study_system_attr(study_id, key, value)
        trials = store.get_all_trials(there)
        for trial in trials:
            trial.system_attrs.pop(CONSTRAINTS, None)
            self._trials_there[super().create_new_trial(study_id, trial)] = trial._trial_id
        self._kept[study_id] = len(trials)

    def keep(self, study_name: str, number: int) -> None:
        """Write a trial there, and every earlier one, so that their numbers are the same there."""
        self._keep(self.get_study_id_from_name(study_name), number)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what the block changes of a trial there in one go."""
        with self._reaching(), self._there.together():
            yield

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Make a study, there and here."""
        study_id = super().create_new_study(directions, study_name)
        with self._reaching():
            name = self.get_study_name_from_id(study_id)
            self._studies_there[study_id] = self._there.create_new_study(directions, name)
        return study_id

    def delete_study(self, study_id: int) -> None:
        """Delete a study, there and here."""
        with self._reaching():
            self._there.delete_study(self._studies_there.pop(study_id))
        super().delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute, there and here."""
        super().set_study_user_attr(study_id, key, value)
        with self._reaching():
            self._there.set_study_user_attr(self._studies_there[study_id], key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's own, there and here."""
        super().set_study_system_attr(study_id, key, value)
        with self._reaching():
            self._there.set_study_system_attr(self._studies_there[study_id], key, value)

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
            with self._reaching():
                self._there.set_trial_state_values(self._trials_there[trial_id], state, values)
        elif changed and state.is_finished():
            self._keep(*self._trial_id_to_study_id_and_number[trial_id])
        return changed

    def set_trial_param(self, trial_id: int, param_name: str, value: float, distribution: BaseDistribution) -> None:
        """Set a param; `value` is in Optuna's internal form."""
        super().set_trial_param(trial_id, param_name, value, distribution)
        if trial_id in self._trials_there:
            with self._reaching():
                self._there.set_trial_param(self._trials_there[trial_id], param_name, value, distribution)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the score at a rung."""
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        if trial_id in self._trials_there:
            with self._reaching():
                self._there.set_trial_intermediate_value(self._trials_there[trial_id], step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute."""
        super().set_trial_user_attr(trial_id, key, value)
        if trial_id in self._trials_there:
            with self._reaching():
                self._there.set_trial_user_attr(self._trials_there[trial_id], key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute of Optuna's own."""
        super().set_trial_system_attr(trial_id, key, value)
        if trial_id in self._trials_there:
            there = {key: value, **(_of_dashboard(self.get_trial(trial_id)) if key.startswith(CONSTRAINT) else {})}
            for name, content in there.items():
                with self._reaching():
                    self._there.set_trial_system_attr(self._trials_there[trial_id], name, content)

    def _keep(self, study_id: int, number: int) -> None:
        for next_one in range(self._kept.get(study_id, 0), number + 1):
            trial = self.get_trial(self.get_trial_id_from_study_id_trial_number(study_id, next_one))
            whole = copy.copy(trial)
            whole.system_attrs = {**trial.system_attrs, **_of_dashboard(trial)}
            with self._reaching():
                there = self._there.create_new_trial(self._studies_there[study_id], whole)
            self._trials_there[trial._trial_id], self._kept[study_id] = there, next_one + 1


def _of_dashboard(trial: FrozenTrial) -> dict[str, list[float]]:
    """What optuna-dashboard reads of the constraints of a trial that has some."""
    found = [float(value) for key, value in trial.system_attrs.items() if key.startswith(CONSTRAINT)]
    return {CONSTRAINTS: found} if found else {}


def _store(output: Path, url: str | None) -> tuple[Journal | Database, list[int]]:
    """Where the trials of an output folder are kept, and the ids of its studies there; never more than one is ours."""
    if url is None:
        if entry := Entry.of(output):
            raise SpecError(_elsewhere(output, f'`storage = "{public(entry.url)}"`'))
        repair(output)
        journal = open_journal(output)
        return journal, [study._study_id for study in journal.get_all_studies()]
    if (output / JOURNAL).is_file():
        raise SpecError(_elsewhere(output, '`storage = "journal"`'))
    database = Database(url, output)
    return database, database.own()


def _elsewhere(output: Path, how: str) -> str:
    return (
        f"the study in {output} was begun with {how} in [tracking], and its trials are there; restore that, or "
        "give the study another `output`."
    )
