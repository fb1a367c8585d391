"""Workers with unequal shares, lost GPUs and hung processes: the workers are real, and their GPUs are made up."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from autopeft.budget.limits import Budget
from autopeft.execution import processes
from autopeft.execution.problem import Problem
from autopeft.execution.processes import Processes, Worker
from autopeft.execution.pulse import Pulse, Silence
from autopeft.execution.runner import Findings
from autopeft.execution.shares import Share
from autopeft.methods.registry import discover
from autopeft.models.cards import VISIBLE, Card
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE
from tests.conftest import THREE, write_tiny_study
from tests.execution.test_processes import begin
from tests.methods.test_registry import beside, install, write_plugin
from tests.search.test_run import FAILING, edit, store

if TYPE_CHECKING:
    from autopeft.execution.outcome import Outcome
    from autopeft.methods.candidate import Candidate

KIB = 2**10
LONGEST = 1200.0
"""Seconds for some processes to start and train tiny models, on a machine that has much else to do."""


@dataclass
class Handle:
    """A trial outside of a study."""

    candidate: Candidate
    estimates: list[Any] = field(default_factory=list)
    ends: list[Outcome] = field(default_factory=list)
    losses: list[tuple[str, bool, bool]] = field(default_factory=list)

    def estimated(self, usage: Any) -> None:
        self.estimates.append(usage)

    def settled(self, packing: Any) -> None: ...

    def started(self, usage: Any) -> None: ...

    def rung(self, rung: Any) -> None: ...

    def end(self, outcome: Outcome) -> None:
        self.ends.append(outcome)

    def lost(self, why: str, *, machine: bool = False, asked: bool = False) -> None:
        self.losses.append((why, machine, asked))


@pytest.fixture(scope="module")
def problem(tmp_path_factory, tiny_model) -> Problem:
    study = write_tiny_study(tmp_path_factory.mktemp("shares"), tiny_model)
    edit(study, (THREE, 'methods = ["lora"]\nlora.r = [4, 256]\nlora.target_modules = "all_linear"'))
    edit(study, ("epochs = 4", "epochs = 1"), ('name = "tiny"', f'name = "tiny"\noutput = "{study.parent / "out"}"'))
    return Problem.from_spec(StudySpec.from_file(study), discover())


@contextmanager
def workers(problem: Problem, *shares: Share):
    """Workers with these shares, and what they said."""
    said: list[str] = []
    shared = replace(problem, shares=shares)
    with Processes(shared, len(shares), lambda: Findings({}, {}), said.append) as backend:
        yield backend, said


def wait_until(backend: Processes, reached) -> None:
    deadline = time.monotonic() + LONGEST
    while not reached():
        assert time.monotonic() < deadline
        backend.poll()


def environment(worker) -> bytes:
    """The variables that a process was started with."""
    deadline = time.monotonic() + LONGEST
    while not (found := Path(f"/proc/{worker.process.pid}/environ").read_bytes()):  # it is about to be started
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def lora(problem: Problem, rank: int) -> Handle:
    part = problem.space["lora"]
    return Handle(part.candidate({**part.own.defaults(), "r": rank}, part.training.defaults()))


def test_a_candidate_that_only_the_larger_share_has_room_for_runs_there(problem):
    small, large = (Share(Budget(max_gpu_memory=size * KIB)) for size in (500, 2048))
    with workers(problem, small, large) as (backend, said):
        wait_until(backend, lambda: len(backend._waiting) == 2)
        trials = {rank: lora(problem, rank) for rank in (16, 64, 128, 4)}  # the small share takes the first
        for trial in trials.values():
            wait_until(backend, lambda: backend.free)
            backend.give(trial)
        wait_until(backend, lambda: not backend.busy)
    outcomes = {rank: trial.ends for rank, trial in trials.items()}
    assert {rank: [end.state for end in ends] for rank, ends in outcomes.items()} == {
        16: [COMPLETE], 64: [COMPLETE], 128: [INFEASIBLE], 4: [COMPLETE],
    }  # fmt: skip
    assert "over max_gpu_memory = 2.0 MiB" in outcomes[128][0].reason
    assert all(500 * KIB < outcomes[rank][0].measured_memory <= 2048 * KIB for rank in (16, 64))
    assert all(len(trial.estimates) == 1 for trial in trials.values()), "only the worker that decides tells the sampler"
    assert not said


def test_a_gpu_that_is_lost_twice_is_left_out_and_the_others_go_on(problem):
    gone = Card(1, "GPU-that-was", "Made-up", 2**34)
    trials = [lora(problem, rank) for rank in (4, 8)]
    with workers(problem, Share(Budget(), gone), Share(Budget())) as (backend, said):
        own, other = map(environment, backend._workers)
        assert f"{VISIBLE}={gone.visible}\0".encode() in own, "set before its first import"
        assert f"{VISIBLE}={os.environ[VISIBLE]}\0".encode() in other
        wait_until(backend, lambda: len(said) == 2)
        for trial in trials:
            wait_until(backend, lambda: backend.free)
            backend.give(trial)
        wait_until(backend, lambda: not backend.busy)
    lost = f"A worker process on {gone} lost its GPU (PyTorch finds no GPU any more)."
    assert said == [
        f"{lost} It is replaced; its trial, if any, is not lost.",
        f"{lost} {gone} failed twice and is left out until the study is started again. Workers left: 1; its trial, if "
        "any, is not lost.",
    ]
    assert [[end.state for end in trial.ends] for trial in trials] == [[COMPLETE], [COMPLETE]]


def linger(pipe):
    """A process whose pipe ends before it does, as when a GPU's driver hangs."""
    pipe.close()
    time.sleep(LONGEST)


def test_a_worker_that_hangs_as_it_ends_does_not_live_on_beside_its_replacement(problem, monkeypatch):
    monkeypatch.setattr(processes, "FAREWELL_SECONDS", 0.5)
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=linger, args=(there,), daemon=True)
    process.start()
    there.close()
    backend = Processes(problem, 1, lambda: Findings({}, {}), print)
    worker = Worker(0, Share(Budget()), process, here, Silence(Pulse(context), 60.0))
    backend._workers.append(worker)
    with pytest.raises(EOFError):
        here.recv()
    assert backend._bury(worker) == (0, "a worker process hung as it ended and was killed")
    process.join(LONGEST)
    assert process.exitcode == -signal.SIGKILL


COUNTING = FAILING.replace("Failing", "Counting").replace('"failing"', '"counting"').replace("BODY", "pass")
COUNTING = COUNTING.replace(
    "@hookimpl",
    """    def callback(self, model, params, spec):
        import multiprocessing, os, autopeft
        class Counted(autopeft.TrainingCallback):
            def after_update(self, step):
                if not multiprocessing.parent_process():  # the study's own process, in the race and the refit
                    return
                with open(os.environ["COUNT"], "a+") as file:
                    file.write(f"{os.getpid()} {step}\\n")
                    file.flush()
                    file.seek(0)
                    if len(file.readlines()) == DIES_AT:
                        os.kill(os.getpid(), HOW)
        return Counted()
@hookimpl""",
)
UPDATES, BEFORE, DIES_AT = 3 * 8 * 2, 36, 41
"""Updates of its two folds; those before the last rung of the second one; and the call in which its process stops. One
more update is made before each start, to measure its memory, and taken back.
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "makes no progress"])
def test_a_worker_that_ends_in_a_trial_costs_no_more_than_the_last_rung(tiny_study, tmp_path, how):
    body = COUNTING.replace("DIES_AT", str(DIES_AT)).replace("HOW", str(int(how)))
    install(write_plugin(tmp_path, "counting-plugin", "counting", body), tmp_path / "site")
    edit(
        tiny_study,
        (THREE, 'methods = ["counting", "lora"]\nhang_timeout = "20s"\nrace = 0'),
        ("trials = 4", "trials = 2\nworkers = 2"),
        ("epochs = 4", "epochs = 8"),
    )
    process = begin(tiny_study, PYTHONPATH=beside(tmp_path / "site")["PYTHONPATH"], COUNT=str(tmp_path / "count"))
    said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    told = "was killed by signal 9" if how == signal.SIGKILL else "made no progress for"
    assert f"A worker process {told}" in said
    _, runs = store(tiny_study.parent / "outputs" / "tiny")
    states = sorted((run.data.params["method"], run.data.tags["state"]) for run in runs)
    assert states == [("counting", "COMPLETE"), ("counting", "INTERRUPTED"), ("lora", "COMPLETE")]
    lines = [line.split() for line in (tmp_path / "count").read_text().splitlines()]
    assert len({pid for pid, _ in lines}) == 2, "it went on in another process"
    assert len(lines) == 2 + UPDATES + (DIES_AT - 1 - BEFORE)


@pytest.mark.exhaustive
def test_a_trial_that_hangs_two_workers_has_failed_and_the_study_goes_on(tiny_study, tmp_path):
    body = FAILING.replace("BODY", "import multiprocessing, os\n            "
                           "multiprocessing.parent_process() and os.kill(os.getpid(), 19)")  # fmt: skip
    install(write_plugin(tmp_path, "failing-plugin", "failing", body), tmp_path / "site")
    edit(
        tiny_study,
        (THREE, 'methods = ["failing", "lora"]\nhang_timeout = "10s"\nrace = 0'),
        ("trials = 4", "trials = 2\nworkers = 2"),
    )
    process = begin(tiny_study, PYTHONPATH=beside(tmp_path / "site")["PYTHONPATH"])
    said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    _, runs = store(tiny_study.parent / "outputs" / "tiny")
    ends = {run.data.params["method"]: run.data.tags for run in runs if run.data.tags["state"] != "INTERRUPTED"}
    assert {method: tags["state"] for method, tags in ends.items()} == {"failing": FAIL, "lora": COMPLETE}
    assert "made no progress for" in ends["failing"]["reason"]
    assert "for the second time" in ends["failing"]["reason"]
