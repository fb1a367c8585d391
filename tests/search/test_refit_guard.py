"""A refit that collapses although its folds learnt is told from the training rows, and run again."""

from dataclasses import replace

import pytest
import torch

from autopeft.execution.outcome import Outcome
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import trainable
from autopeft.search import refit, refit_guard
from autopeft.search.refit_guard import BAND, CollapsedError, fault_of, guarded_refit
from autopeft.search.trial import record_of
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE
from autopeft.training import rungs
from autopeft.training.collapse import COLLAPSED, LEARNING
from autopeft.training.learner import DivergedError
from tests.conftest import write_tiny_study

ALIKE = "it answers nearly all rows alike"
LONG = 16
"""Epochs after which LoRA has learnt the tiny rows."""


@pytest.fixture(scope="module")
def problem(tmp_path_factory, tiny_model):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("guard"))
        study = write_tiny_study(tmp_path_factory.mktemp("study"), tiny_model)
        return Problem.from_spec(StudySpec.from_file(study), discover())


def candidate_of(problem, **hyper):
    default = problem.space["lora"].default()
    return replace(default, hyper=replace(default.hyper, **{"epochs": 1, **hyper}))


def record_for(candidate, losses=(0.25, 0.3), state=LEARNING):
    rung = rungs.Rung(1, 1.0, (0.8, 0.8), 0.3, (state,) * 2, losses)
    return record_of(0, "lora", candidate.flat, candidate.hyper.epochs, None, Outcome(COMPLETE, rungs=(rung,)))


def values(model):
    return [parameter.detach().clone() for parameter in trainable(model).values()]


def test_a_refit_has_collapsed_above_its_folds_by_a_quarter_of_the_blind_loss_or_where_it_says_one_label(problem):
    candidate = candidate_of(problem, epochs=4)
    made = refit.train_whole(problem, candidate)
    limit = 0.3 + BAND * problem.task.blind_loss(problem.train.truths)
    assert fault_of(problem, candidate, made._replace(loss=limit - 1e-6), (0.2, 0.3)) == ""
    told = fault_of(problem, candidate, made._replace(loss=limit + 1e-6), (0.2, 0.3))
    assert told == f"its training loss ended at {limit:.4g}, and those of the folds at 0.3 or below"
    assert fault_of(problem, candidate, made._replace(loss=9.0)) == "", "without folds that learnt there is no band"
    with torch.no_grad():
        next(value for name, value in trainable(made.model).items() if name.endswith("bias"))[0] += 1e4
    assert fault_of(problem, candidate, made) == ALIKE


def test_each_run_of_a_refit_starts_alike_and_draws_its_rows_anew(problem):
    candidate = candidate_of(problem)
    first, again, other = (values(refit.train_whole(problem, candidate, run).model) for run in (0, 0, 1))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
    still = candidate_of(problem, learning_rate=1e-30)
    first, other = (values(refit.train_whole(problem, still, run).model) for run in (0, 1))
    assert all(torch.allclose(one, two, atol=1e-20) for one, two in zip(first, other, strict=True))


def test_the_loss_of_a_refit_is_of_the_steps_that_the_folds_last_losses_are_of(problem, monkeypatch):
    parts, train_epoch = [], refit.train_epoch
    monkeypatch.setattr(rungs, "FEWEST_ROWS", 10)
    monkeypatch.setattr(refit, "train_epoch", lambda *given: parts.append(given[-1]) or train_epoch(*given))
    refit.train_whole(problem, candidate_of(problem))
    assert problem.rung_ends(1) == [0.5, 1.0]
    assert parts == [(0.0, 0.5), (0.5, 1.0)]


def test_a_refit_that_collapses_is_run_again_with_another_seed(problem, monkeypatch):
    candidate, said, train_whole = candidate_of(problem, epochs=LONG), [], refit.train_whole

    def at_first_too_fast(problem, candidate, run):
        return train_whole(problem, candidate_of(problem, learning_rate=30.0) if run == 0 else candidate, run)

    monkeypatch.setattr(refit_guard, "train_whole", at_first_too_fast)
    made = guarded_refit(problem, candidate, record_for(candidate), said.append)
    assert len(said) == len(made.faults) == 1
    assert "collapsed: its training loss ended at" in said[0]
    assert made.fault == ""
    assert made.told.startswith("the first refit collapsed (its training loss ended at")
    assert all(map(torch.equal, values(made.model), values(train_whole(problem, candidate, 1).model)))


def test_after_three_runs_the_last_is_given_with_what_is_wrong_with_it(problem, monkeypatch):
    fast, said = candidate_of(problem, learning_rate=30.0), []
    made = guarded_refit(problem, fast, record_for(fast), said.append)
    assert len(said) == 2
    assert made.told.startswith("the refit collapsed, 3 times: its training loss ended at")

    def diverges(*given):
        raise DivergedError("the training loss is no longer a finite number.")

    monkeypatch.setattr(refit_guard, "train_whole", diverges)
    with pytest.raises(CollapsedError, match="the refit collapsed, 3 times: the training loss is no longer a finite"):
        guarded_refit(problem, fast, record_for(fast), said.append)


def test_what_collapsed_in_all_its_folds_is_refitted_once(problem):
    fast, said = candidate_of(problem, learning_rate=30.0), []
    record = record_for(fast, state=COLLAPSED)
    assert (record.collapsed, record.fold_losses) == (2, ())
    made = guarded_refit(problem, fast, record, said.append)
    assert said == []
    assert made.told == f"the refit collapsed: {ALIKE}"
