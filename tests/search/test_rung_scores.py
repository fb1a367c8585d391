"""What is known of the scores at each rung without reading all trials is what reading them all tells."""

import math

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from autopeft.search.rung_scores import RungScores

RUNGS = (1, 2, 3)


def at(study, rung):
    """The scores at a rung, read from all trials that did not fail."""
    trials = [trial for trial in study.trials if trial.state != TrialState.FAIL]
    found = [trial.intermediate_values.get(rung, math.nan) for trial in trials]
    return [score for score in found if not math.isnan(score)]


@pytest.mark.parametrize("seed", range(20))
def test_trials_that_end_in_any_order_and_way_count_as_if_all_were_read_anew(seed):
    generator, study, going = np.random.default_rng(seed), optuna.create_study(direction="maximize"), []
    for _ in range(60):
        if not going or generator.random() < 0.3:
            going.append((study.ask(), []))
        trial, reached = going[generator.integers(len(going))]
        score = math.nan if generator.random() < 0.1 else float(generator.integers(6)) / 6  # many are equal
        reached.append(score)
        trial.report(score, len(reached))
        if len(reached) == RUNGS[-1] or generator.random() < 0.3:
            state = TrialState(generator.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]))
            study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)
            going.remove((trial, reached))
        known = RungScores.of(study)
        for rung in RUNGS:
            scores = at(study, rung)
            assert known.better(rung, 0.5) == (sum(score > 0.5 for score in scores), len(scores))
            assert str(known.best(rung)) == str(max(scores, default=math.nan))


def test_each_study_has_its_own():
    studies = [optuna.create_study(direction="maximize") for _ in range(2)]
    for study, score in zip(studies, (0.2, 0.8), strict=True):
        study.ask().report(score, 1)
    assert [RungScores.of(study).best(1) for study in studies] == [0.2, 0.8]
    assert RungScores.of(studies[0]) is RungScores.of(studies[0])
