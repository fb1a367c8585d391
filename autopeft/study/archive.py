"""Reads a study from its output folder without changing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import UserInputError
from autopeft.common.model_names import MODEL, arm
from autopeft.study.raced import Raced
from autopeft.study.record import DEFAULTS, STOPPED_EARLY, TrialRecord, ranked, records
from autopeft.study.states import COUNTED, INFEASIBLE

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial

FINISHED, STOPPED, RUNNING, INTERRUPTED = "finished", "stopped", "running", "interrupted"
"""A stopped study has a winner, like a finished one, but its search ended before its last trial."""


@dataclass(frozen=True)
class Archive:
    """A study as its store holds it.

    Attributes:
        name: the study's.
        state: FINISHED, STOPPED, RUNNING or INTERRUPTED.
        given: its settings, as `StudySpec.to_dict` wrote them.
        attrs: what else it keeps about itself.
        trials: Optuna's trials, by number.
        records: of the trials that ended.
    """

    name: str
    output: Path
    state: str
    given: dict[str, Any]
    attrs: dict[str, Any]
    trials: dict[int, FrozenTrial]
    records: list[TrialRecord]

    @property
    def ranked(self) -> list[TrialRecord]:
        """The complete trials, the best first."""
        return ranked(self.records)

    @property
    def trained(self) -> list[TrialRecord]:
        """The trials that were admitted."""
        return [record for record in self.records if record.state != INFEASIBLE]

    @property
    def ended(self) -> list[TrialRecord]:
        """The trials that count: neither refused nor stopped by the timeout."""
        return [record for record in self.records if record.state in COUNTED]

    @property
    def stopped(self) -> str:
        """How the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials"; or ""."""
        return str(self.attrs[STOPPED_EARLY]) if self.state == STOPPED else ""

    @property
    def defaults(self) -> dict[str, TrialRecord]:
        """The ended trials of the untuned defaults, by method (and base model, if there are several).

        A study queues the defaults before it draws anything, beside candidates of the portfolio and of a warm start. An
        interrupted default is queued again under another number.
        """
        numbers, known = {}, self.attrs.get(DEFAULTS, {})
        for number, trial in self.trials.items():
            queued = trial.system_attrs.get("fixed_params")
            if not queued or "retry_of" in trial.user_attrs:
                continue
            params = {**queued, **trial.params}  # where candidates share a pass, only what they have alike is queued
            if all(known.get(name, value) == value for name, value in params.items()):
                method, several = str(queued["method"]), self.given["model"].get("candidates")
                numbers[arm(method, queued[f"{method}.{MODEL}"] if several else "")] = number
        again = {t.user_attrs["retry_of"]: number for number, t in self.trials.items() if "retry_of" in t.user_attrs}
        by_number = {record.number: record for record in self.records}
        found = {}
        for method, number in numbers.items():
            while number in again:
                number = again[number]
            if number in by_number:
                found[method] = by_number[number]
        return found


def open_archive(output: Path, *, ended: bool = False) -> Archive:
    """Read the study in an output folder.

    Args:
        output: the folder.
        ended: whether the search has ended; until the process that ran it releases the folder, only that process knows.

    Raises:
        UserInputError: no study has been started there, or its journal is damaged.
        StoreError: its database cannot be reached.
    """
    from autopeft.study.lock import holder
    from autopeft.study.storage import open_study

    study = open_study(output)
    if study is None or "given" not in study.user_attrs:
        raise UserInputError(f"the study in {output} has no trial yet; run it with `autopeft run`.")
    found, attrs, trials = records(study), study.user_attrs, study.get_trials(deepcopy=False)
    early = attrs.get(STOPPED_EARLY, "")  # None while the search goes on
    if ended:
        state = STOPPED if early else FINISHED
    elif holder(output):
        state = RUNNING
    else:
        selected = [record.number for record in ranked(found)[:1]] == [attrs.get("test_scores", {}).get("number")]
        # A default that is still queued was not asked for; a trial that will run again was cut off.
        cut_off = any(
            not t.state.is_finished() and (t.state.name == "RUNNING" or "retry_of" in t.user_attrs) for t in trials
        )
        raced = Raced.read(attrs)
        cut_off |= raced is not None and raced.ruling is None
        over = not cut_off and early is not None and (selected or (early and not ranked(found)))
        state = INTERRUPTED if not over else STOPPED if early else FINISHED
    return Archive(study.study_name, output, state, attrs["given"], attrs, {t.number: t for t in trials}, found)
