"""What comes to a study from outside: time that is up, signals, a reader that leaves, a machine that gives no more."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from autopeft.common.containment import guarded, running_time
from autopeft.common.exceptions import StreamError
from autopeft.common.interrupt import Interrupt
from autopeft.execution.leak_check import LeakCheck
from autopeft.execution.outcome import Outcome
from autopeft.execution.problem import Problem
from autopeft.execution.runner import Findings, Runner
from autopeft.methods.registry import discover
from autopeft.reporting import gather
from autopeft.reporting.leaderboard import leaderboard
from autopeft.reporting.terminal import show
from autopeft.search.retrying import FAULTS, MOST_FAULTS, go_on, retry
from autopeft.search.trial import Trial, record_of
from autopeft.study.file import StudySpec
from autopeft.study.journal import open_journal
from autopeft.study.record import RECORD, TrialRecord, records
from autopeft.study.states import FAIL, STOPPED
from autopeft.study.storage import StudyStorage
from autopeft.training.checkpoint import Checkpoint
from tests.common.test_machine import limited, taken
from tests.conftest import HEAVY, THREE, autopeft_here, write_tiny_study
from tests.execution.test_processes import LONGER, begin, check_books, children, wait_for
from tests.forking import Child, command
from tests.reporting.test_leaderboard import text
from tests.search.test_run import edit, run_study, store

CUT = "stopped by the timeout of 1 h after 2 of 4 trials"


def open_study(study: Path) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=open_journal(study.parent / "outputs" / "tiny"))


def told(result: dict) -> tuple:
    """What of a study's result must be the same however often it was cut short."""
    trials = {(json.dumps(r["params"]), r["state"], r["score"], str(r["curve"])) for r in result["records"]}
    return trials, result["best"]["name"], result["best"]["score"], result["test"]["winner"], result["stopped"]


@pytest.fixture(scope="module", params=HEAVY)
def undisturbed(tmp_path_factory, tiny_model):
    """The result of the tiny study."""
    return told(run_study(write_tiny_study(tmp_path_factory.mktemp("undisturbed"), tiny_model)))


def test_a_search_cut_by_its_timeout_says_so_everywhere_and_goes_on(tiny_study, undisturbed, monkeypatch):
    rung, output, here = Trial.rung, tiny_study.parent / "outputs" / "tiny", {"cwd": tiny_study.parent}

    def late(self, reached):
        if self._search.done() == 2:
            self._search.deadline = 0.0
        return rung(self, reached)

    edit(tiny_study, ("trials = 4", 'trials = 4\ntimeout = "1h"'))
    with monkeypatch.context() as patch:
        patch.setattr(Trial, "rung", late)
        done = autopeft_here("run", tiny_study, **here)
    assert done.returncode == 0, done.stderr
    assert f"The search was {CUT}. Run the same command again to continue" in done.stdout
    assert f"in cross-validation (trial 1). The search was {CUT}." in " ".join(done.stdout.split())
    assert "1/4: its score is that of epoch 1 of 4, so it has no rank" in " ".join(done.stdout.split())
    result = json.loads((output / "result.json").read_text())
    assert (result["stopped"], [r["state"] for r in result["records"]].count(STOPPED)) == (CUT, 1)
    (cut,) = (r for r in result["records"] if r["state"] == STOPPED)
    assert cut["reason"] == "the study's timeout was reached"
    assert any(Checkpoint.of(output, cut["params"]).folder.iterdir())
    assert f"tiny was {CUT}" in autopeft_here("status", tiny_study, **here).stdout
    status = json.loads(autopeft_here("status", tiny_study, "--json", **here).stdout)
    assert (status["state"], status["stopped"], status["trials"], status["wanted"]) == ("stopped", CUT, 2, 4)
    report = json.loads(autopeft_here("report", tiny_study, "--json", **here).stdout)
    assert (report["state"], report["stopped"]) == ("stopped", CUT)
    assert f"The search was {CUT}" in report["headline"][0]
    assert f"tiny: {CUT}" in text(show(gather(output)))
    page = (output / "report.html").read_text()
    assert f"{CUT} · autopeft" in page
    assert "stopped: the study&#39;s timeout was reached" in page
    assert "Dashed ones were stopped by the timeout" in page
    assert f"The search was {CUT}." in (output / "winner" / "README.md").read_text()
    (parent,), trials = store(output)
    assert parent.data.tags["stopped"] == CUT
    assert f"The search was {CUT}." in parent.data.tags["mlflow.note.content"]
    assert [run.info.status for run in trials if run.data.tags["state"] == STOPPED] == ["KILLED"]
    assert told(run_study(tiny_study)) == undisturbed
    assert json.loads(autopeft_here("status", tiny_study, "--json", **here).stdout)["state"] == "finished"
    assert all(trial.state.is_finished() for trial in open_study(tiny_study).trials)
    assert not (output / "checkpoint").exists()
    (version,) = MlflowClient(result["tracking_uri"]).search_model_versions("name='tiny'")
    for folder in (output / "winner", output / "mlflow_model/data/winner", Path(version.source[7:]) / "data/winner"):
        assert "The search was" not in (folder / "README.md").read_text()  # it won both times


def record(number: int, state: str, params: dict, *, machine: bool = False) -> TrialRecord:
    return record_of(number, "lora", params, 1, None, Outcome(state, "why", machine=machine))


def fixed(study: optuna.Study, drawn: optuna.Trial) -> dict:
    return study.get_trials(deepcopy=False)[drawn.number].system_attrs["fixed_params"]


def test_a_later_start_goes_on_with_what_was_stopped_and_retries_the_machines_faults_twice(tmp_path):
    study = optuna.create_study(storage=StudyStorage(tmp_path), direction="maximize")
    ends = [(STOPPED, False), (FAIL, True), (FAIL, False)]
    for number, (state, machine) in enumerate(ends):
        study.enqueue_trial({"method": "lora", "lora.r": number})
        drawn = study.ask()
        drawn.set_user_attr(RECORD, asdict(record(number, state, fixed(study, drawn), machine=machine)))
        study.tell(drawn, state=optuna.trial.TrialState.FAIL)
    for start in range(MOST_FAULTS + 1):
        for _ in range(2):  # a start that was killed right then does no more
            retry(study)
            go_on(study)
        queued = study.get_trials(states=(optuna.trial.TrialState.WAITING,))
        assert len({t.user_attrs["retry_of"] for t in queued}) == len(queued)
        again = {t.system_attrs["fixed_params"]["lora.r"]: t.user_attrs[FAULTS] for t in queued}
        assert again == ({1: start + 1} if start < MOST_FAULTS else {}) | {0: 0}
        assert [r.params["lora.r"] for r in records(study)] == ([2] if start < MOST_FAULTS else [2, 1])
        while study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            drawn = study.ask()
            params = fixed(study, drawn)
            state, machine = ends[params["lora.r"]]
            drawn.set_user_attr(RECORD, asdict(record(drawn.number, state, params, machine=machine)))
            study.tell(drawn, state=optuna.trial.TrialState.FAIL)


def stopped_while_silent(folder: Path, limit: float, stop: float) -> tuple[int, str]:
    """A process that is silent from before it is stopped until after it goes on."""
    ready, go = os.pipe(), os.pipe()

    def work():
        wall, clock = time.monotonic(), running_time()
        with guarded(limit):
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        assert time.monotonic() - wall >= stop
        assert running_time() - clock < stop
        return 0

    child = Child(work, folder)
    os.read(ready[0], 1)
    child.send(signal.SIGSTOP)
    time.sleep(stop)
    child.send(signal.SIGCONT)
    os.write(go[1], b"x")
    return child.wait()


def test_time_in_which_a_process_was_stopped_is_no_silence(tmp_path):
    assert stopped_while_silent(tmp_path, limit=2.0, stop=4.0) == (0, "")


def test_what_a_callers_own_handler_raises_is_no_fault_of_what_ran_then():
    def end(number, frame):
        raise SystemExit(3)

    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit) as raised, Interrupt(), guarded(60):
            os.kill(os.getpid(), signal.SIGTERM)
        assert raised.value.code == 3
        assert signal.getsignal(signal.SIGTERM) is end
        interrupt = Interrupt()
        with interrupt, suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            interrupt.check()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_interrupts_unless_that_is_ignored(tmp_path, ignored):
    def work():
        if ignored:  # as nohup does
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with Interrupt(), guarded(60):
                os.kill(os.getpid(), signal.SIGHUP)
        except KeyboardInterrupt:
            return 1
        return 0

    assert Child(work, tmp_path).wait() == (0 if ignored else 1, "")


class Quiet:
    """A job that nobody watches."""

    def estimated(self, usage):
        pass

    settled = started = estimated

    def rung(self, rung):
        return None


def test_what_the_host_says_to_nobody_while_a_method_is_looked_at_is_no_fault_of_the_method(tiny_study, monkeypatch):
    edit(tiny_study, (THREE, 'methods = ["adalora"]'), ('packing = "off"', 'packing = "on"'))
    monkeypatch.chdir(tiny_study.parent)
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())

    def say(sentence):
        assert "one after the other" in sentence
        raise StreamError

    with LeakCheck() as leak_check:
        runner = Runner(problem, say, Findings({}, {}), leak_check)
        with pytest.raises(StreamError):
            runner(problem.space["adalora"].default(), Quiet())


HUNGRY = """
import torch
from autopeft import PeftMethod, SearchSpace, hookimpl

class Hungry(PeftMethod):
    contract = 1
    name = "hungry"

    def search_space(self, spec=None):
        return SearchSpace({})

    def apply(self, model, params, spec):
        if not next(model.parameters()).is_meta:
            torch.zeros(2**26)  # 256 MiB, for a moment
        for parameter in model.get_submodule(spec.layers[-1]).parameters():
            parameter.requires_grad_(parameter.ndim == 1)
        return model

@hookimpl
def register_methods():
    return [Hungry()]
"""


@pytest.fixture
def hungry(tiny_study, tmp_path, monkeypatch) -> Path:
    """A study of a method that needs 256 MiB, and of LoRA."""
    about = tmp_path / "site" / "hungry-1.0.dist-info"
    about.mkdir(parents=True)
    about.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: hungry\nVersion: 1.0\n")
    about.joinpath("entry_points.txt").write_text("[autopeft]\nhungry = hungry\n")
    (tmp_path / "site" / "hungry.py").write_text(HUNGRY)
    monkeypatch.syspath_prepend(tmp_path / "site")
    edit(
        tiny_study, (THREE, 'methods = ["hungry", "lora"]'), ("trials = 4", "trials = 3"), ("epochs = 4", "epochs = 1")
    )
    return tiny_study


def without_memory(study: Path) -> int:
    """Run it where no method that needs much gets it."""
    started, put_back, end = Trial.started, Trial._put_back, Trial.end

    def short(self, usage):
        started(self, usage)
        if self.candidate.method.name == "hungry":
            limited(resource.RLIMIT_AS, taken() + 2**25)

    def enough(work):
        def run(self, *args, **kwargs):
            limited(resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS)[1])
            return work(self, *args, **kwargs)

        return run

    Trial.started, Trial._put_back, Trial.end = short, enough(put_back), enough(end)
    return command("run", study)


@pytest.mark.exhaustive
def test_a_machine_short_of_memory_ends_the_study_and_the_next_start_goes_on_with_the_trial(hungry):
    code, said = Child(lambda: without_memory(hungry), hungry.parent).wait()
    assert code == 1
    assert re.search(r"trial 0 \(hungry .*\) could not go on: the machine has no memory left", said)
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert records(open_study(hungry)) == []
    _, trials = store(hungry.parent / "outputs" / "tiny")
    assert [(run.info.status, run.data.tags["state"]) for run in trials] == [("KILLED", "INTERRUPTED")]
    result = run_study(hungry)
    assert {r["method"] for r in result["records"] if r["state"] == "COMPLETE"} >= {"hungry", "lora"}
    assert "FAIL" not in {r["state"] for r in result["records"]}
    check_books(hungry, 3)


@pytest.mark.soak
def test_a_machine_that_stays_short_of_memory_fails_the_trial_at_last_and_the_table_says_whose_fault(hungry):
    for _ in range(MOST_FAULTS):
        assert Child(lambda: without_memory(hungry), hungry.parent).wait()[0] == 1
    code, said = Child(lambda: without_memory(hungry), hungry.parent).wait()
    assert code == 0, said
    found = records(open_study(hungry))
    shown = text(leaderboard(found, "accuracy"), width=600)
    assert re.search(r"the machine failed: the machine has no memory left .* \(it was tried 3 times\)", shown)
    failed = [r for r in found if r.state == FAIL]
    assert {(r.method, r.machine) for r in failed} == {("hungry", True)}
    assert "hungry" not in {r.method for r in found if r.state == "COMPLETE"}


def disturbed(study: Path, disturb, *, code: int) -> str:
    """What a study said that was disturbed when its second trial began to train."""
    child = Child(lambda: command("run", study), study.parent)
    child.line("[2/4]")
    disturb(child)
    found, said = child.wait()
    assert found == code, said
    assert "Traceback" not in said
    return said


def stop_and_go_on(child: Child) -> None:
    child.send(signal.SIGSTOP)
    time.sleep(5)
    child.send(signal.SIGCONT)


@pytest.mark.parametrize(
    ("disturb", "code", "words"),
    [
        pytest.param(stop_and_go_on, 0, "", marks=pytest.mark.soak),
        pytest.param(lambda child: child.send(signal.SIGHUP), 1, "interrupted", marks=pytest.mark.soak),
        pytest.param(
            lambda child: child.stdout.close(), 1, "nobody reads the output any more", marks=pytest.mark.exhaustive
        ),
    ],
    ids=["stopped for longer than the hang timeout", "hung up", "head"],
)
def test_a_study_that_is_disturbed_from_outside_finds_the_same(tiny_study, undisturbed, disturb, code, words):
    edit(tiny_study, ("trials = 4", 'trials = 4\nhang_timeout = "3s"'))
    assert words in disturbed(tiny_study, disturb, code=code)
    parents, trials = store(tiny_study.parent / "outputs" / "tiny")
    assert "RUNNING" not in {run.info.status for run in (*parents, *trials)}
    assert FAIL not in {r.state for r in records(open_study(tiny_study))}
    assert told(run_study(tiny_study)) == undisturbed
    check_books(tiny_study, 4)


@pytest.mark.soak
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_study_and_its_workers_at_once_ends_them_all_and_fails_no_trial(tiny_study, how):
    edit(tiny_study, *LONGER)
    for _ in range(2):  # a second time, too, of the same trials
        process = begin(tiny_study)
        wait_for(process, "[2/4]")
        workers = children(process.pid)
        for pid in (*workers, process.pid):
            os.kill(pid, how)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 1, said
        assert "Traceback" not in said
        assert not any(map(exists, workers))
    parents, trials = store(tiny_study.parent / "outputs" / "tiny")
    assert "RUNNING" not in {run.info.status for run in (*parents, *trials)}
    assert FAIL not in {r["state"] for r in run_study(tiny_study)["records"]}
    check_books(tiny_study, 4)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
