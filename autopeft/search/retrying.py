"""Trials that run again: they had not ended, the timeout stopped them, or the machine failed, not their method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autopeft.study.record import RETRY_OF, TrialRecord, records
from autopeft.study.states import FAIL, STOPPED

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

    from autopeft.common.params import Params

WHY, FAULTS = "why", "machine_faults"
"""User attributes of a trial queued to run again: why, and how often the machine was at fault before."""

WORKER_DIED, MACHINE = "WORKER DIED", "MACHINE"
"""Two of the reasons; `outcome.STOPPED` and `record.INTERRUPTED` are others."""

MOST_FAULTS = 2
"""How often later starts run a trial again after the machine failed. After that the trial has failed for good."""


def run_again(study: optuna.Study, number: int, params: Mapping[str, object], why: str, faults: int = 0) -> None:
    """Queue a trial once more, under another number."""
    study.enqueue_trial(dict(params), user_attrs={RETRY_OF: number, WHY: why, FAULTS: faults})


def go_on(study: optuna.Study) -> None:
    """Queue the trials that the timeout stopped in an earlier start."""
    for record in _stopped(study):
        run_again(study, record.number, record.params, STOPPED, faults(study, record.number))


def retry(study: optuna.Study) -> None:
    """Queue the trials that failed in an earlier start because the machine did, a few times at most."""
    for record in due(study):
        run_again(study, record.number, record.params, MACHINE, faults(study, record.number) + 1)


def due(study: optuna.Study) -> list[TrialRecord]:
    """The trials that the next start runs again because the machine failed."""
    failed = [record for record in records(study) if record.state == FAIL and record.machine]
    return [record for record in failed if faults(study, record.number) < MOST_FAULTS]


def faults(study: optuna.Study, number: int) -> int:
    """How often the machine had ended a trial before it ran under this number."""
    return int(study.get_trials(deepcopy=False)[number].user_attrs.get(FAULTS, 0))


def to_come(study: optuna.Study) -> list[Params]:
    """The params of the trials that are queued, and of those that the next start queues."""
    queued = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [*(trial.system_attrs["fixed_params"] for trial in queued), *(record.params for record in _stopped(study))]


def _stopped(study: optuna.Study) -> list[TrialRecord]:
    return [record for record in records(study) if record.state == STOPPED]
