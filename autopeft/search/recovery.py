"""Cleans up Optuna after a process that was killed: running trials are closed or queued again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autopeft.search import retrying
from autopeft.study.record import RECORD, RETRY_OF, TrialRecord
from autopeft.study.states import COMPLETE, FAIL, INTERRUPTED, STOPPED

if TYPE_CHECKING:
    import optuna


def tell(study: optuna.Study, number: int, record: TrialRecord) -> None:
    """End a trial in Optuna in the state of its record."""
    if record.state == COMPLETE:
        study.tell(number, record.score)
    else:
        # A trial that the timeout stopped runs again: the sampler and the pruner must not see it twice.
        study.tell(number, state=TrialState.FAIL if record.state in (FAIL, STOPPED) else TrialState.PRUNED)


def recover(study: optuna.Study) -> None:
    """Close the trials that an earlier process left running; those that had not ended are queued again, once each.

    That process may have been killed between any two lines: a queued trial's params are written one by one, and the
    new trial is queued before the old one is closed.
    """
    queued = {trial.user_attrs.get(RETRY_OF) for trial in study.get_trials(deepcopy=False)}
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if RECORD in frozen.user_attrs:
            tell(study, frozen.number, TrialRecord.read(frozen.user_attrs[RECORD]))
            continue
        params = {**frozen.system_attrs.get("fixed_params", {}), **frozen.params}  # only some may have been given
        if params and frozen.number not in queued:
            retrying.run_again(study, frozen.number, params, INTERRUPTED, retrying.faults(study, frozen.number))
        study.tell(frozen.number, state=TrialState.FAIL)
