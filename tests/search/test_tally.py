"""Counts that are kept as trials end are those of a study that is read as a whole."""

from dataclasses import asdict

import optuna

from autopeft.execution.outcome import Outcome
from autopeft.search.retrying import MACHINE, run_again
from autopeft.search.tally import Tally
from autopeft.search.trial import record_of
from autopeft.study.record import RECORD
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, PRUNED, STOPPED


def test_counts_kept_as_trials_end_are_those_of_the_whole_study():
    study = optuna.create_study()
    study.enqueue_trial({"x": 1})
    tally = Tally(study)
    for state in (COMPLETE, INFEASIBLE, PRUNED, STOPPED, FAIL, COMPLETE):
        trial = study.ask()
        tally.started(trial.number)
        assert tally.drawn == max(0, trial.number - 1)  # none that runs
        outcome = Outcome(state, excess=10 * trial.number)
        record = record_of(trial.number, "lora", {"method": "lora"}, 1, None, outcome)
        trial.set_user_attr(RECORD, asdict(record))
        study.tell(trial, 1.0)
        tally.add(record)
        tally.add(record)
        anew = Tally(study)
        assert (tally.ended, tally.counted, tally.drawn, tally.excess) == (
            anew.ended, anew.counted, anew.drawn, anew.excess
        )  # fmt: skip
    assert (tally.ended, tally.counted, tally.drawn, tally.excess) == (6, 4, 5, {"lora": 50})


def test_a_trial_that_runs_again_counts_once():
    study = optuna.create_study()
    trial = study.ask()
    record = record_of(0, "lora", {"method": "lora"}, 1, None, Outcome(FAIL, machine=True))
    trial.set_user_attr(RECORD, asdict(record))
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert (Tally(study).ended, Tally(study).drawn) == (1, 1)
    run_again(study, 0, {"method": "lora"}, MACHINE, 1)
    assert (Tally(study).ended, Tally(study).counted, Tally(study).drawn) == (0, 0, 1)
