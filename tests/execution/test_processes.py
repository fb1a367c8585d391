"""Studies whose trials run side by side, in real processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from autopeft.study.storage import open_study
from autopeft.tracking import Tracker
from autopeft.tracking.sender import KEY
from tests.conftest import THREE, autopeft_here
from tests.methods.test_registry import beside, install, write_plugin
from tests.processes import alive, command, descendants, parent
from tests.search.test_run import FAILING, edit, run_study, store

TWO = ("trials = 4", "trials = 4\nworkers = 2")
LONGER = ((THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 4\nworkers = 2"), ("epochs = 4", "epochs = 8"))
COUNTED = ("COMPLETE", "PRUNED", "FAIL")


def begin(study: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "autopeft", "run", study.name],
        cwd=study.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"the study ended before it said {words}")


def children(pid: int) -> list[int]:
    """Worker processes of a study."""
    return [one for one in descendants(pid) if parent(one) == pid and "spawn_main" in command(one)]


def check_books(study: Path, trials: int, uri: str | None = None) -> list[dict]:
    """Every trial that counts is in both stores once, and none is left open; MLflow's may be at `uri`, with others."""
    output = study.parent / "outputs" / "tiny"
    study_there = open_study(output)
    found = study_there.trials
    assert not [t.number for t in found if not t.state.is_finished()]
    records = [t.user_attrs["record"] for t in found if "record" in t.user_attrs]
    assert sum(r["state"] in COUNTED for r in records) == trials
    params = Counter(str(r["params"]) for r in records)
    assert set(params.values()) == {1}  # no two workers drew the same point
    parents, runs = store(output, uri, study_there.user_attrs["study_id"] if uri else "")
    assert len(parents) == 1
    assert {run.info.status for run in parents} == {"FINISHED"}
    assert "RUNNING" not in {run.info.status for run in runs}
    keys = Counter(run.data.tags[KEY] for run in runs)
    own = [f"{study_there.user_attrs['study_id']}/trial/{run.data.tags['trial']}" for run in runs]
    assert keys == dict.fromkeys(own, 1)  # each of this study, and once
    ended = [int(run.data.tags["trial"]) for run in runs if run.data.tags["state"] != "INTERRUPTED"]
    assert sorted(ended) == sorted(r["number"] for r in records)
    assert not (output / "checkpoint").exists()
    return records


def test_stores_are_read_as_they_are_and_not_as_a_folder_had_them_that_is_gone(tmp_path):
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        with Tracker.connect(None, tmp_path / name, "tiny") as tracker:
            tracker.start(name, "a search", {})
    assert [run.data.tags[KEY] for run in store(tmp_path / "before")[0]] == ["before/search"]
    shutil.rmtree(tmp_path / "before")
    (tmp_path / "after").rename(tmp_path / "before")
    assert [run.data.tags[KEY] for run in store(tmp_path / "before")[0]] == ["after/search"]


def test_two_workers_run_every_trial_once_share_the_budget_and_the_winner_is_scored(tiny_study):
    edit(tiny_study, TWO, add='[budget]\nmax_gpu_memory = "1200 KiB"\n')
    result = run_study(tiny_study)
    records = check_books(tiny_study, 4)
    trained = [r for r in records if r["state"] in COUNTED]
    assert all(r["measured_memory"] <= 600 * 2**10 for r in trained)
    assert any("micro-batches" in r["execution"] for r in trained)  # in one process, the batch would fit as it is
    assert {r["method"] for r in records} == {"adapter", "lora", "prefix_tuning"}
    assert result["best"]["score"] == max(r["score"] for r in records if r["state"] == "COMPLETE")
    assert result["test"]["winner"] > 0
    assert (tiny_study.parent / "outputs" / "tiny" / "winner").is_dir()
    edit(tiny_study, ("workers = 2", "workers = 1"), ("trials = 4", "trials = 5"))  # both may change
    run_study(tiny_study)
    check_books(tiny_study, 5)


@pytest.mark.exhaustive
def test_a_worker_that_is_killed_is_replaced_and_its_trial_runs_again(tiny_study):
    edit(tiny_study, *LONGER)
    process = begin(tiny_study)
    wait_for(process, "[2/4]")  # both of them train
    os.kill(children(process.pid)[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "A worker process was killed by signal 9" in said
    assert "INTERRUPTED" in said
    check_books(tiny_study, 4)
    _, runs = store(tiny_study.parent / "outputs" / "tiny")
    lost = [run for run in runs if run.data.tags["state"] == "INTERRUPTED"]
    assert [(run.info.status, "signal 9" in run.data.tags["reason"]) for run in lost] == [("KILLED", True)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_interrupted_takes_its_workers_along_and_goes_on(tiny_study, how):
    edit(tiny_study, *LONGER)
    process = begin(tiny_study)
    wait_for(process, "[3/4]")
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(how)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 1)
    assert "Traceback" not in said
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))
    output = tiny_study.parent / "outputs" / "tiny"
    if how != signal.SIGKILL:
        assert {run.info.status for runs in store(output) for run in runs} <= {"FINISHED", "KILLED"}
    kept = [t.user_attrs.get("record") for t in open_study(output).trials]
    assert any(kept)
    run_study(tiny_study)
    records = check_books(tiny_study, 4)
    assert all(record in records for record in kept if record)


@pytest.mark.exhaustive
def test_the_stop_rules_hold_over_all_workers(tiny_study, tmp_path):
    body = FAILING.replace("BODY", "raise ValueError('a planted fault')")
    install(write_plugin(tmp_path, "failing-plugin", "failing", body), tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["failing"]'), ("trials = 4", "trials = 9\nworkers = 2"))
    process = begin(tiny_study, PYTHONPATH=beside(tmp_path / "site")["PYTHONPATH"])
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "its 3 trials all failed for the same reason: ValueError: a planted fault" in said
    assert "Traceback" not in said
    _, runs = store(tiny_study.parent / "outputs" / "tiny")
    assert Counter(run.data.tags["state"] for run in runs)["FAIL"] == 3


@pytest.mark.exhaustive
def test_a_method_that_ends_its_process_before_it_trains_has_failed_the_second_time(tiny_study, tmp_path):
    kill = """    def callback(self, model, params, spec):
        import multiprocessing, os
        if multiprocessing.parent_process():  # so not in the study's own process
            os.kill(os.getpid(), 9)
@hookimpl"""
    body = FAILING.replace("BODY", "pass").replace("@hookimpl", kill)
    install(write_plugin(tmp_path, "failing-plugin", "failing", body), tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["failing", "lora"]'), ("trials = 4", "trials = 2\nworkers = 2"))
    edit(tiny_study, add='[budget]\nmax_gpu_memory = "1 GiB"\n')
    process = begin(tiny_study, PYTHONPATH=beside(tmp_path / "site")["PYTHONPATH"])
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    records = check_books(tiny_study, 2)
    assert {r["method"]: r["state"] for r in records} == {"failing": "FAIL", "lora": "COMPLETE"}
    assert "for the second time" in next(r["reason"] for r in records if r["state"] == "FAIL")


@pytest.mark.parametrize("workers", ["0", "true", '"many"', "1.5"])
def test_a_number_of_workers_that_makes_no_sense_is_refused(tiny_study, workers):
    edit(tiny_study, ("trials = 4", f"workers = {workers}"))
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert 'must be a whole number, from 1 to 1000, or "auto"' in done.stderr
