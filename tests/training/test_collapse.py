import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from autopeft.data.split import split
from autopeft.execution.outcome import Outcome
from autopeft.search.trial import record_of
from autopeft.study.record import TrialRecord, plain
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, PRUNED
from autopeft.tasks.registry import find_task
from autopeft.testing.task_case import TaskCase
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.collapse import COLLAPSED, LEARNING, NOT_YET, state_of, state_of_fold
from autopeft.training.cross_validation import cross_validate
from autopeft.training.rungs import Rung
from autopeft.training.setup import Setup
from tests.conftest import THREE, autopeft_here
from tests.search.test_run import edit, store
from tests.training.test_learner import CPU, HYPER, TASK, lora, rows

DATA = rows()
BLIND = 1.0


class Outputs:
    def __init__(self, logits):
        self.logits = logits


def task_of(kind, **options):
    case = TaskCase(find_task(kind).configured(options))
    return case.task, case.data.truths


@pytest.mark.parametrize(
    ("losses", "one_answer", "part", "state"),
    [
        ([0.9], False, 0.1, LEARNING),
        ([0.97], False, 0.1, NOT_YET),
        ([0.9], True, 0.1, NOT_YET),
        ([1.2, 0.97], False, 0.3, NOT_YET),
        ([1.2, 0.97], False, 0.4, COLLAPSED),
        ([0.5, 0.3], True, 0.4, COLLAPSED),
        ([0.5, 0.96], False, 0.2, COLLAPSED),
        ([1.2, 0.5, 0.6], False, 1.0, LEARNING),
        ([1.2, 0.97], None, 1.0, COLLAPSED),
    ],
)
def test_a_fold_that_is_stuck_has_not_begun_yet_or_has_collapsed(losses, one_answer, part, state):
    assert state_of(losses, BLIND, one_answer, part) == state


def test_what_cannot_be_told_is_not_told():
    assert state_of([5.0], None, None, 1.0) is None
    assert state_of([5.0], None, False, 1.0) == LEARNING
    assert state_of([5.0], None, True, 1.0) == COLLAPSED
    assert state_of([0.0], 0.0, False, 1.0) == LEARNING, "of rows of one label every loss is above that of always it"
    choice, truths = task_of("multiple-choice")
    assert state_of_fold(choice, [5.0], 1.0, truths, np.zeros((len(truths), 2)), truths) is None


def test_the_blind_loss_is_what_the_best_answer_without_a_look_at_the_rows_loses():
    labels = np.repeat([0, 1, 2], [6, 3, 1])
    task = find_task("text-classification").configured({}).knowing({}, ("a", "b", "c"))
    given = torch.tensor([0.6, 0.3, 0.1]).log().expand(10, 3)
    found = task.loss(Outputs(given), {"labels": torch.from_numpy(labels)})
    assert task.blind_loss(labels) == pytest.approx(float(found), rel=1e-5)

    task, truths = task_of("multi-label-classification")
    given = torch.logit(torch.from_numpy(truths.mean(axis=0))).expand(*truths.shape)
    found = task.loss(Outputs(given), {"labels": torch.from_numpy(truths).float()})
    assert task.blind_loss(truths) == pytest.approx(float(found), rel=1e-5)

    task, truths = task_of("regression")
    found = task.loss(Outputs(torch.zeros(len(truths), 1)), {"labels": torch.from_numpy(task.scaled(truths))})
    assert task.blind_loss(truths) == pytest.approx(float(found), rel=1e-5)

    task, truths = task_of("token-classification")
    tags = torch.from_numpy(np.concatenate([*truths])).long()
    given = (torch.bincount(tags) / len(tags)).log().clamp(min=-50).expand(1, len(tags), -1)
    found = task.loss(Outputs(given), {"labels": tags[None]})
    assert task.blind_loss(truths) == pytest.approx(float(found), rel=1e-5)


@pytest.mark.parametrize("options", [{"focal_gamma": 2.0}, {"label_smoothing": 0.1}, {"class_weights": "balanced"}])
def test_of_a_loss_that_is_another_it_is_not_known(options):
    task, truths = task_of("text-classification", **options)
    assert task.blind_loss(truths) is None


def test_a_classifier_gives_all_rows_one_label_though_no_label_is_true_of_nearly_all():
    task = find_task("text-classification").configured({}).knowing({}, ("a", "b", "c"))
    rows = np.eye(3, dtype=np.float32)
    mixed = np.arange(100) % 3
    assert task.one_answer(rows[np.zeros(100, int)], mixed)
    assert task.one_answer(rows[np.r_[np.zeros(98, int), 1, 2]], mixed)
    assert not task.one_answer(rows[np.r_[np.zeros(97, int), 1, 2, 2]], mixed)
    assert not task.one_answer(rows[np.zeros(100, int)], (np.arange(100) > 90).astype(int))


def test_where_a_threshold_is_chosen_later_a_half_tells_nothing():
    task, truths = task_of("text-classification")
    given = np.tile(np.float32([0.9, 0.1]), (len(truths), 1))
    assert task.maximising("accuracy").one_answer(given, truths)
    assert task.maximising("f1").one_answer(given, truths) is None


def test_numbers_that_hardly_differ_are_one_answer():
    task, truths = task_of("regression")
    assert task.one_answer(truths.mean() + 0.04 * (truths - truths.mean()), truths)
    assert not task.one_answer(truths.mean() + 0.06 * (truths - truths.mean()), truths)


def test_a_tagger_that_finds_no_entity_has_one_answer():
    task, truths = task_of("token-classification")
    none = task.baseline(truths, truths, task.names).answers
    assert task.one_answer(none, truths)
    some = none.copy()
    some[0, 0, 0] = 1
    assert not task.one_answer(some, truths)
    assert not task.one_answer(none, np.array([np.zeros_like(truth) for truth in truths], object))


def test_the_folds_of_a_trial_are_told_and_those_that_were_told_before_an_interruption_too(tmp_path):
    folds = split(len(DATA), DATA.truths, None, 3, seed=0)
    setup = Setup(task=TASK, rows=DATA, folds=folds, metric="accuracy", device=CPU, seed=5)
    still = replace(HYPER, learning_rate=1e-9)
    checkpoint = Checkpoint(tmp_path / "trial")
    found = [rung.states for rung in cross_validate(lora(), setup, still, checkpoint=checkpoint)]
    assert found == [(NOT_YET,) * 3, (COLLAPSED,) * 3, (COLLAPSED,) * 3]
    assert [rung.states for rung in cross_validate(lora(), setup, still, checkpoint=checkpoint)] == found


def test_an_outcome_says_how_many_of_its_folds_collapsed_at_last():
    rungs = (
        Rung(1, 1.0, (0.5, 0.5), 1.0, (COLLAPSED,) * 2),
        Rung(2, 2.0, (0.5, 0.6), 1.0, (COLLAPSED, LEARNING), (1.6, 0.4)),
    )
    assert Outcome(COMPLETE, rungs=rungs).why == "1 of 2 folds collapsed"
    assert Outcome(PRUNED, "pruned", rungs=rungs).why == "pruned; 1 of 2 folds collapsed"
    assert Outcome(FAIL, "out of memory", rungs=rungs).why == "out of memory"
    assert Outcome(COMPLETE, rungs=(Rung(1, 1.0, (0.5,), 1.0, (LEARNING,)),)).why == ""
    assert Outcome(INFEASIBLE, "too large").collapsed == 0
    kept = record_of(0, "lora", {"method": "lora"}, 2, None, Outcome(COMPLETE, rungs=rungs))
    assert (kept.reason, kept.collapsed, kept.metrics["collapsed_folds"]) == ("1 of 2 folds collapsed", 1, 1)
    assert kept.fold_losses == (0.4,), "of the fold that learnt"
    assert TrialRecord.read(json.loads(json.dumps(plain(kept)))) == kept
    kept = record_of(0, "lora", {"method": "lora"}, 2, None, Outcome(COMPLETE, rungs=rungs[:0]))
    assert kept.metrics["collapsed_folds"] is None


@pytest.mark.exhaustive
def test_a_study_names_what_collapsed_on_the_screen_in_mlflow_and_in_the_report(tiny_study):
    """Rates at which every weight is thrown far away: afterwards all rows look alike."""
    edit(
        tiny_study,
        (THREE, 'methods = ["lora"]'),
        ("trials = 4\nepochs = 4", "trials = 1\nepochs = 2"),
        ("= 0.02", "= 30.0"),
    )
    done = autopeft_here("run", tiny_study.name, "--json", cwd=tiny_study.parent)
    assert done.returncode == 0, done.stderr
    result, output = json.loads(done.stdout), tiny_study.parent / "outputs" / "tiny"
    folds = len(result["best"]["fold_scores"])
    told = f"{folds} of {folds} folds collapsed"
    assert (result["best"]["reason"], result["best"]["collapsed"]) == (told, folds)
    assert told in done.stderr
    assert result["test"]["notes"]["winner"].startswith("the refit collapsed")
    page = (output / "report.html").read_text()
    assert told in page
    assert "the refit collapsed" in page
    (search,), (trial,) = store(output)
    assert trial.data.metrics["collapsed_folds"] == folds
    assert "the refit collapsed" in search.data.tags["mlflow.note.content"]
    assert trial.data.tags["reason"].startswith(f"won; {told}; the refit collapsed")
    assert "Note on its training: the refit collapsed" in (output / "winner" / "README.md").read_text()
