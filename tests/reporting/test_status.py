"""Where a study stands, as a second process reads it."""

import json
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from autopeft.common.exceptions import UserInputError
from autopeft.reporting import status
from autopeft.study.journal import open_journal
from autopeft.study.output import taken
from autopeft.study.phase import RACING, REFITTING, SCORING, SEARCHING, STARTING, Phase, keep
from autopeft.study.record import WORKERS
from tests.conftest import autopeft_here
from tests.reporting.test_leaderboard import text
from tests.reporting.test_report import GIVEN, record, store
from tests.reporting.test_report import running as being_run

FOUND = [record(0, folds=(0.6,) * 3), record(1, state="PRUNED", folds=(0.4,) * 3), record(2, folds=(0.7,) * 3)]
REFUSED = record(3, state="INFEASIBLE", folds=())


@pytest.fixture
def running(tmp_path) -> Path:
    """The folder of a study with a trial that has reached its second rung."""
    given = {**GIVEN, "search": {**GIVEN["search"], "trials": 5}}
    store(tmp_path, [*FOUND, REFUSED], given=given)
    study = optuna.load_study(study_name="made", storage=open_journal(tmp_path))
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params={"method": "lora", "lora.r": 8},
            distributions={"method": CategoricalDistribution(("lora",)), "lora.r": IntDistribution(1, 64)},
            intermediate_values={1: 0.5, 2: 0.55},
        )
    )
    return tmp_path


def test_a_running_study_shows_what_trains_the_best_so_far_and_the_time_left(running):
    with being_run(running):
        found = status.status(running)
    assert (found.state, found.trials, found.wanted) == ("running", 3, 5)
    assert found.states == {"COMPLETE": 2, "PRUNED": 1, "INFEASIBLE": 1}
    assert (found.best, found.score) == ("lora r=2", pytest.approx(0.7))
    assert found.running == (status.Running(4, "lora r=8", (0.5, 0.55), "lora r=8"),)
    assert found.seconds_left == pytest.approx(2 * 10)
    shown = text(status.show(found))
    assert "made is running: 3 of 5 trials, 1 proposal refused, about 20 s left" in shown
    assert "best so far: 0.7000 lora r=2  ▁▁█" in shown
    assert "0.5000 0.5500" in shown


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (Phase(STARTING), "made is starting: 3 of 5 trials, 1 proposal refused"),
        (Phase(SEARCHING), "made is searching: 3 of 5 trials, 1 proposal refused, about 20 s left"),
        (Phase(SEARCHING, ends=15.3, latest=True), "refused, at most 15 s left"),
        (Phase(SEARCHING, ends=90.0, latest=True), "refused, about 20 s left"),
        (Phase(RACING, "the leaders on fresh folds", ends=75.2), "is racing the leaders on fresh folds: 3 of 5 trials"),
        (
            Phase(REFITTING, "the winner", ends=75.2),
            "refitting the winner: 3 of 5 trials, 1 proposal refused, about 1 min 15 s",
        ),
        (Phase(SCORING, "head alone", ends=75.2, latest=True), "at most 1 min 15 s left"),
    ],
)
def test_it_says_what_the_study_is_at_and_how_long_that_takes(running, phase, said, monkeypatch):
    with being_run(running) as pid:
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now)
        keep(running, replace(phase, pid=pid, ends=phase.ends and now + phase.ends))
        found = status.status(running)
    assert found.state == "running"
    assert found.phase == str(phase)
    assert said in text(status.show(found))
    assert status.status(running).phase == "", "nobody runs it now"


def test_it_names_the_workers_of_a_running_study(running):
    told = "Trials train in 2 worker processes: 2 on GPU 1 (Made-up, 80.0 GiB), with 39.5 GiB each."
    optuna.load_study(study_name="made", storage=open_journal(running)).set_user_attr(WORKERS, told)
    with being_run(running):
        found = status.status(running)
    assert found.workers == told
    assert told in " ".join(text(status.show(found)).split())
    assert status.status(running).workers == "", "nobody runs it now"


def test_what_a_killed_process_was_at_is_not_believed_of_the_next(running):
    keep(running, Phase(SCORING, "head alone"))
    with being_run(running):
        assert status.status(running).phase == ""


def test_a_clock_that_was_set_back_while_the_study_runs_hides_nothing(running, monkeypatch):
    with being_run(running) as pid:
        yesterday = time.time() - 86_400
        monkeypatch.setattr(time, "time", lambda: yesterday)
        keep(running, Phase(SCORING, "head alone", pid=pid))
        assert status.status(running).phase == "scoring head alone"


def test_a_study_without_a_trial_is_starting(tmp_path):
    with taken(tmp_path / "new"):
        found = status.status(tmp_path / "new")
    assert (found.state, found.phase, found.trials) == ("running", "starting", 0)
    assert text(status.show(found)) == "new is starting\n"
    assert not (tmp_path / "new").exists()


def test_one_that_nobody_runs_was_interrupted(running):
    found = status.status(running)
    assert (found.state, found.running, found.seconds_left) == ("interrupted", (), None)


def test_one_that_crowned_its_best_is_finished_though_a_default_was_never_asked_for(tmp_path):
    store(tmp_path, FOUND, waiting=1, test_scores={"number": 2})
    assert status.status(tmp_path).state == "finished"


def test_one_that_was_never_started_is_a_sentence(tmp_path):
    with pytest.raises(UserInputError, match="start it with `autopeft run`"):
        status.status(tmp_path)


def test_the_command(tiny_study, tmp_path):
    store(tmp_path / "outputs" / "tiny", FOUND, test_scores={"number": 2})
    printed = autopeft_here("status", tiny_study.name, "--json", cwd=tiny_study.parent)
    assert json.loads(printed.stdout)["state"] == "finished"
    assert "made is finished: 3 of 6 trials" in autopeft_here("status", tiny_study.name, cwd=tiny_study.parent).stdout
