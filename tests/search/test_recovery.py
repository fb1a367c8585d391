"""A study that was killed between any two lines goes on with every trial once."""

import errno
import os
import time
from dataclasses import asdict

import optuna
import pytest
from optuna.trial import TrialState

from autopeft.common.exceptions import StoreError, UserInputError
from autopeft.execution.outcome import Outcome
from autopeft.search.recovery import recover
from autopeft.search.retrying import run_again
from autopeft.search.sampler import DRAWN
from autopeft.search.trial import record_of
from autopeft.study.folder import JOURNAL
from autopeft.study.journal import open_journal
from autopeft.study.record import RECORD
from autopeft.study.states import COMPLETE, FAIL, INTERRUPTED, PRUNED
from autopeft.study.storage import StudyStorage
from autopeft.training.rungs import Rung

QUEUED = {"method": "lora", "lora.r": 8}


@pytest.fixture
def reopened(tmp_path):
    """Opens the study anew, as the next start does."""

    def opened():
        storage = StudyStorage(tmp_path)
        return optuna.create_study(study_name="x", storage=storage, direction="maximize", load_if_exists=True)

    return opened


def open_study(output):
    return optuna.load_study(study_name="x", storage=open_journal(output))


def waiting(study):
    found = study.get_trials(states=(TrialState.WAITING,))
    return [(trial.system_attrs["fixed_params"], trial.user_attrs.get("retry_of")) for trial in found]


def record(number, state):
    rungs = (Rung(1, 1.0, (0.5,), 0.7),) if state == COMPLETE else ()
    return record_of(number, "lora", QUEUED, 1, None, Outcome(state, rungs=rungs))


@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_a_queued_trial_is_queued_again_whatever_was_written_of_it(reopened, drawn):
    study = reopened()
    study.enqueue_trial(QUEUED)
    trial = study.ask()
    if drawn > 0:
        trial.suggest_categorical("method", ["lora"])
    if drawn > 1:
        trial.suggest_int("lora.r", 1, 64)
    study = reopened()
    recover(study)
    assert waiting(study) == [(QUEUED, 0)]
    assert study.trials[0].state == TrialState.FAIL


def test_a_trial_that_is_queued_again_already_is_queued_once(reopened):
    study = reopened()
    study.enqueue_trial(QUEUED)
    study.ask()
    run_again(study, 0, QUEUED, INTERRUPTED)
    study = reopened()
    for _ in range(2):
        recover(study)
    assert waiting(study) == [(QUEUED, 0)]


@pytest.mark.parametrize("state", [COMPLETE, PRUNED, FAIL])
def test_a_trial_that_had_ended_is_closed_and_does_not_run_again(reopened, state):
    study = reopened()
    study.enqueue_trial(QUEUED)
    study.ask().set_user_attr(RECORD, asdict(record(0, state)))
    study = reopened()
    recover(study)
    assert waiting(study) == []
    assert study.trials[0].state.name == state
    assert study.trials[0].value == (0.5 if state == COMPLETE else None)


def test_a_line_that_was_cut_off_is_taken_away_and_nothing_else(reopened, tmp_path):
    study = reopened()
    study.add_trial(optuna.create_trial(value=0.5))
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    study.add_trial(optuna.create_trial(value=0.6))
    journal.write_bytes(journal.read_bytes()[:-5])
    assert [trial.value for trial in open_study(tmp_path).trials] == [0.5]  # who only reads leaves it as it is
    study = reopened()
    assert journal.read_bytes() == whole
    study.add_trial(optuna.create_trial(value=0.7))
    assert [trial.value for trial in open_study(tmp_path).trials] == [0.5, 0.7]


def test_what_a_full_disk_cut_off_is_taken_away_at_once(reopened, tmp_path, monkeypatch):
    study = reopened()
    journal = tmp_path / JOURNAL
    before = journal.read_bytes()

    def full(file):
        os.truncate(journal, len(before) + 5)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match=r"could not be written: OSError: .*No space left .* run the same command"):
            study.add_trial(optuna.create_trial(value=0.5))
    assert journal.read_bytes() == before
    study.set_user_attr("later", 1)
    assert open_study(tmp_path).user_attrs == {"later": 1}


def test_the_lock_of_a_process_that_was_killed_holds_nobody_up(reopened, tmp_path):
    reopened()
    locks = [tmp_path / f"{JOURNAL}.lock", tmp_path / f"{JOURNAL}.lock0c0f1c72-16d8-4f9e-8a51-e1d74a6b6b0e.rename"]
    for lock in locks:
        lock.touch()
    started = time.monotonic()
    reopened().set_user_attr("later", 1)
    assert time.monotonic() - started < 10  # Optuna would wait for 30
    assert not any(lock.exists() for lock in locks)


@pytest.mark.parametrize("damage", [b"no json\n", b"{}\n", b'{"op_code": 99, "worker_id": "x"}\n'])
def test_a_damaged_journal_is_one_sentence_and_stays_as_it_is(reopened, tmp_path, damage):
    reopened()
    journal = tmp_path / JOURNAL
    journal.write_bytes(damage + journal.read_bytes())
    before = journal.read_bytes()
    with pytest.raises(UserInputError, match=r"study\.journal is not an Optuna journal, or is damaged"):
        reopened()
    assert journal.read_bytes() == before


def test_a_trial_of_which_a_part_was_given_runs_again_with_what_was_drawn(reopened):
    study = reopened()
    study.enqueue_trial({"method": "lora"}, user_attrs={DRAWN: True})
    trial = study.ask()
    drawn = {"method": trial.suggest_categorical("method", ["lora"]), "lora.r": trial.suggest_int("lora.r", 1, 64)}
    study = reopened()
    recover(study)
    assert waiting(study) == [(drawn, 0)]
    assert DRAWN not in study.get_trials(states=(TrialState.WAITING,))[0].user_attrs
