"""A refit that collapses although its folds learnt is told from the training rows, and run again."""

from dataclasses import replace

import pytest
import torch

from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.models.attach import trainable
from autopeft.search import refit, refit_guard, select_winner
from autopeft.search.refit_guard import BAND, fault_of, guarded_refit
from autopeft.search.trial import record_of
from autopeft.study.file import StudySpec
from autopeft.training import rungs

ALIKE = "it answers nearly all rows alike"


@pytest.fixture
def problem(tiny_study):
    return Problem.from_spec(StudySpec.from_file(tiny_study), discover())


def candidate_of(problem, **hyper):
    default = problem.space["lora"].default()
    return replace(default, hyper=replace(default.hyper, **hyper))


def record_for(problem, candidate):
    outcome = run_trial(problem, candidate, lambda rung: None)
    return record_of(0, "lora", candidate.flat, candidate.hyper.epochs, None, outcome)


def values(model):
    return [parameter.detach().clone() for parameter in trainable(model).values()]


def test_a_refit_may_end_above_its_folds_by_a_quarter_of_the_blind_loss(problem):
    candidate = candidate_of(problem)
    made = refit.train_whole(problem, candidate)
    limit = 0.3 + BAND * problem.task.blind_loss(problem.train.truths)
    assert fault_of(problem, candidate, made._replace(loss=limit - 1e-6), (0.2, 0.3)) == ""
    told = fault_of(problem, candidate, made._replace(loss=limit + 1e-6), (0.2, 0.3))
    assert told == f"its training loss ended at {limit:.4g}, and those of the folds at 0.3 or below"
    assert fault_of(problem, candidate, made._replace(loss=9.0)) == "", "without folds that learnt there is no band"


def test_a_refit_that_gives_all_training_rows_one_label_has_collapsed(problem):
    candidate = candidate_of(problem)
    made = refit.train_whole(problem, candidate)
    assert fault_of(problem, candidate, made) == ""
    with torch.no_grad():
        next(value for name, value in trainable(made.model).items() if name.endswith("bias"))[0] += 1e4
    assert fault_of(problem, candidate, made) == ALIKE


def test_each_run_of_a_refit_starts_alike_and_draws_its_rows_anew(problem):
    candidate = candidate_of(problem, epochs=1)
    first, again, other = (values(refit.train_whole(problem, candidate, run).model) for run in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    still = candidate_of(problem, epochs=1, learning_rate=1e-30)
    assert all(map(torch.equal, *(values(refit.train_whole(problem, still, run).model) for run in (0, 1))))


def test_the_loss_of_a_refit_is_of_the_steps_that_the_folds_last_losses_are_of(problem, monkeypatch):
    parts, train_epoch = [], refit.train_epoch
    monkeypatch.setattr(rungs, "FEWEST_ROWS", 10)
    monkeypatch.setattr(refit, "train_epoch", lambda *given: parts.append(given[-1]) or train_epoch(*given))
    refit.train_whole(problem, candidate_of(problem, epochs=1))
    assert problem.rung_ends(1) == [0.5, 1.0]
    assert parts == [(0.0, 0.5), (0.5, 1.0)]


def test_a_refit_that_collapses_is_run_again_with_another_seed(problem, monkeypatch):
    candidate, said, train_whole = candidate_of(problem), [], refit.train_whole
    record = record_for(problem, candidate)
    assert len(record.fold_losses) == 2

    def at_first_too_fast(problem, candidate, run):
        return train_whole(problem, candidate_of(problem, learning_rate=30.0) if run == 0 else candidate, run)

    monkeypatch.setattr(refit_guard, "train_whole", at_first_too_fast)
    made = guarded_refit(problem, candidate, record, said.append)
    assert len(said) == len(made.faults) == 1
    assert "collapsed: its training loss ended at" in said[0]
    assert made.fault == ""
    assert made.told.startswith("the first refit collapsed (its training loss ended at")
    assert all(map(torch.equal, values(made.model), values(train_whole(problem, candidate, 1).model)))


def test_a_winner_whose_refits_all_collapse_gives_way_and_a_default_is_scored_and_says_so(problem, tmp_path):
    candidate, fast = candidate_of(problem), candidate_of(problem, learning_rate=30.0)
    record = replace(record_for(problem, candidate), params=fast.flat)  # as if the same had gone well in its folds
    said = []
    made = select_winner._score(problem, fast, tmp_path / "default", "x", [record], said.append)
    assert len(said) == 2
    assert made.told.startswith("the refit collapsed, 3 times: its training loss ended at")
    with pytest.raises(select_winner.CollapsedError, match="3 times"):
        select_winner._score(problem, fast, tmp_path / "winner", "x", [record], said.append, wins=True)


def test_what_collapsed_in_all_its_folds_is_refitted_once_and_kept(problem, tmp_path):
    fast, said = candidate_of(problem, learning_rate=30.0), []
    record = record_for(problem, fast)
    assert (record.collapsed, record.fold_losses) == (2, ())
    made = select_winner._score(problem, fast, tmp_path / "winner", "x", [record], said.append, wins=True)
    assert said == []
    assert made.told == f"the refit collapsed: {ALIKE}"
