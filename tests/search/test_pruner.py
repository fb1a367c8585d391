"""What stops trials that fall behind."""

import math
from typing import get_args

import numpy as np
import optuna
import pytest
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import TrialState

from autopeft.search.pruner import PRUNERS, judge, make_pruner
from autopeft.study.sections import SearchSection

RUNGS = 5


def study_of(pruner):
    return optuna.create_study(direction="maximize", pruner=pruner)


def goes(study, scores, steps=range(1, RUNGS + 1)):
    """After how many of its rungs a trial with these scores is stopped, which it may not be after the last one."""
    trial = study.ask()
    for number, (step, score) in enumerate(zip(steps, scores, strict=False), 1):
        trial.report(score, step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return number
    study.tell(trial, scores[-1])
    return None


@pytest.mark.parametrize("seed", range(5))
def test_halving_judges_every_rung_as_optunas_does_when_told_epochs_that_double(seed):
    ours, theirs = (
        study_of(make_pruner("successive_halving", RUNGS)),
        study_of(SuccessiveHalvingPruner(reduction_factor=2, min_resource=1)),
    )
    stopped = []
    for scores in np.random.default_rng(seed).random((100, RUNGS)):
        stopped.append(goes(ours, scores))
        assert stopped[-1] == goes(theirs, scores, [2**rung for rung in range(RUNGS)])
    assert {1, 2, 3} <= set(stopped)


@pytest.mark.parametrize("seed", range(100))
def test_the_plain_rule_decides_as_the_pruner_does(seed):
    """On any history, with ties, scores that are not numbers, and trials that failed."""
    generator, study, at_rung = np.random.default_rng(seed), study_of(make_pruner("successive_halving", RUNGS)), {}
    for _ in range(12):
        trial, fails = study.ask(), generator.random() < 0.1
        reached, pruned = {}, False
        for rung in range(1, RUNGS + 1):
            own = math.nan if generator.random() < 0.05 else float(generator.integers(8)) / 8
            trial.report(own, rung)
            reached[rung] = own
            pruned = trial.should_prune()
            assert pruned == judge([*at_rung.get(rung, []), own], own)
            if pruned or fails:
                break
        if fails or pruned:
            study.tell(trial, state=TrialState.FAIL if fails else TrialState.PRUNED)
        else:
            study.tell(trial, 0.5)
        for rung, own in reached.items() if not fails else ():
            at_rung.setdefault(rung, []).append(own)


def test_a_trial_that_was_interrupted_and_runs_again_competes_once():
    study = study_of(make_pruner("successive_halving", RUNGS))
    interrupted = study.ask()
    interrupted.report(0.90, 1)
    study.tell(interrupted, state=TrialState.FAIL)
    for score in (0.90, 0.80, 0.85):
        goes(study, [score])
    assert goes(study, [0.88]) is None


def test_a_score_that_is_not_a_number_is_the_worst():
    study = study_of(make_pruner("successive_halving", RUNGS))
    assert goes(study, [math.nan]) == 1
    assert goes(study, [0.1]) is None


@pytest.mark.parametrize("name", ["hyperband", "successive_halving", "median", "none"])
def test_every_pruner_lets_a_trial_begin(name):
    study = study_of(make_pruner(name, RUNGS))
    assert not study.ask().should_prune()


def test_the_study_file_may_name_every_pruner_and_no_other():
    choices = get_args(SearchSection.model_fields["pruner"].annotation)
    assert sorted(choices) == sorted(PRUNERS)
    assert all(isinstance(make_pruner(name, 3), optuna.pruners.BasePruner) for name in choices)
