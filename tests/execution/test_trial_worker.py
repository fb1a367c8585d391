"""Trials of a study trained elsewhere, and what goes there and back: here by a worker in a thread of this process."""

import pickle
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.common import cache
from autopeft.common.exceptions import SpecError, StudyError
from autopeft.execution.in_process import InProcess
from autopeft.execution.outcome import Outcome
from autopeft.execution.problem import Problem
from autopeft.execution.runner import Findings
from autopeft.execution.study_work import StudyWork, about
from autopeft.execution.trial_worker import TrialWorker
from autopeft.execution.work_order import Message, WorkOrder
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from autopeft.study.sections import MethodsSection
from autopeft.training.checkpoint import Checkpoint
from tests.conftest import THREE
from tests.methods.test_registry import install, write_plugin
from tests.search.test_run import FAILING, edit

PATIENCE = 120.0


class Trial:
    """A trial that keeps what it hears, and stops at a rung."""

    def __init__(self, candidate, stop_at=None):
        self.candidate, self.heard, self.stop_at = candidate, [], stop_at
        self.outcome = None

    def estimated(self, usage):
        self.heard.append("estimated")

    def settled(self, packing):
        self.heard.append("settled")

    def started(self, usage):
        self.heard.append("started")

    def rung(self, rung):
        self.heard.append((rung.number, rung.mean, rung.loss))
        return "enough" if rung.number == self.stop_at else None

    def end(self, outcome):
        self.outcome = outcome

    def lost(self, why, **how):
        self.heard.append(why)


def problem_of(study: Path) -> Problem:
    return Problem.from_spec(StudySpec.from_file(study), discover())


def work_of(problem: Problem, said: list[str] | None = None) -> StudyWork:
    return StudyWork(problem, 4, lambda: Findings({}, {}), (said if said is not None else []).append)


def as_sent(given):
    """What arrives at another process."""
    return pickle.loads(pickle.dumps(given))


def begun(work: StudyWork, folder: Path, files=()) -> TrialWorker:
    worker = TrialWorker(as_sent(work.order), folder)
    worker.begin(as_sent(work.rows), 1, files)
    until(worker, "ready", work, None)
    return worker


def until(worker: TrialWorker, last: str, work: StudyWork, trial: Trial | None) -> list[Message]:
    """Pass messages on and answer rungs until one comes."""
    found: list[Message] = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for message in map(as_sent, worker.messages(1.0)):
            found.append(message)
            answer = work.hear("the worker on here", trial, message)
            if message.what == last:
                return found
            if message.what == "rung":
                worker.answer(answer)
    pytest.fail(f"no message {last} came, but {[message.what for message in found]}")


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def test_a_trial_elsewhere_ends_as_it_does_here(tiny_study, elsewhere):
    edit(tiny_study, (THREE, 'methods = ["lora"]'))
    problem = problem_of(tiny_study)
    candidate = problem.space["lora"].default()
    here, there = Trial(candidate), Trial(candidate)
    with InProcess(problem, lambda: Findings({}, {}), print) as backend:
        backend.give(here)
    work = work_of(problem)
    worker = begun(work, elsewhere)
    worker.start(as_sent(work.trial_order(there)))
    until(worker, "end", work, there)
    assert there.heard == here.heard
    assert replace(there.outcome, seconds=0, needed_seconds=0) == replace(here.outcome, seconds=0, needed_seconds=0)
    worker.close()
    assert list(elsewhere.iterdir()) == []


def test_a_trial_goes_on_elsewhere_from_the_last_rung_that_was_reported(tiny_study, elsewhere):
    edit(tiny_study, (THREE, 'methods = ["lora"]'))
    problem = problem_of(tiny_study)
    candidate = problem.space["lora"].default()
    work, whole, broken = work_of(problem), Trial(candidate), Trial(candidate)
    worker = begun(work, elsewhere)
    worker.start(work.trial_order(whole))
    until(worker, "end", work, whole)
    Checkpoint.clear(problem.spec.output)
    worker.start(work.trial_order(broken))
    until(worker, "rung", work, broken)  # and then nobody hears of it again
    again, other = Trial(candidate), begun(work, elsewhere)
    other.start(as_sent(work.trial_order(again)))
    found = until(other, "end", work, again)
    assert again.outcome.rungs == whole.outcome.rungs
    files = [message.content[1] for message in found if message.what == "rung"]
    assert not files[0]  # that rung was not trained again
    assert all(files[1:])
    assert len(files) == len(whole.outcome.rungs)
    worker.close()
    other.close()


def test_the_base_model_is_sent_where_it_is_not_and_kept_there(tiny_study, elsewhere, monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))
    edit(tiny_study, (THREE, 'methods = ["lora"]'))
    own = tmp_path / "own"
    shutil.copytree((tiny_study.parent / "model").resolve(), own)
    (tiny_study.parent / "model").unlink()
    own.rename(tiny_study.parent / "model")
    (tiny_study.parent / "model" / ".env").write_text("TOKEN=of-the-user")
    work = work_of(problem_of(tiny_study))
    assert ".env" not in work.model_files
    pieces = [(name, content[at : at + 1000]) for name, path in work.model_files.items()
              for content in [path.read_bytes()] for at in range(0, len(content), 1000)]  # fmt: skip
    assert not TrialWorker(work.order, elsewhere).lacks_model
    (tiny_study.parent / "model" / "config.json").unlink()
    assert TrialWorker(work.order, elsewhere).lacks_model
    begun(work, elsewhere, iter(pieces)).close()
    (kept,) = [path for path in (cache.folder() / "base_models").iterdir() if path.is_dir()]
    assert (kept / "config.json").is_file()
    assert not TrialWorker(work.order, elsewhere).lacks_model
    broken = TrialWorker(replace(work.order, base_digest="sha256:0"), elsewhere)
    broken.begin(work.rows, 1, iter(pieces[1:]))
    with pytest.raises(StudyError, match="did not arrive whole"):
        until(broken, "ready", work, None)


def test_a_metric_of_the_users_own_goes_along(tiny_study, elsewhere):
    (tiny_study.parent / "mine.py").write_text(
        "def share(true, made):\n    return sum(map(str.__eq__, true, made)) / 7\n"
    )
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("folds = 2", 'folds = 2\nmetric = "mine:share"'))
    problem = problem_of(tiny_study)
    work, trial = work_of(problem), Trial(problem.space["lora"].default(), stop_at=1)
    order = as_sent(work.order)
    (tiny_study.parent / "mine.py").unlink()
    worker = TrialWorker(order, elsewhere)
    worker.begin(as_sent(work.rows), 1)
    until(worker, "ready", work, None)
    worker.start(work.trial_order(trial))
    until(worker, "end", work, trial)
    assert trial.outcome.state == "PRUNED"
    assert trial.outcome.score > 1 / 7
    worker.close()


def test_a_trial_that_stands_still_is_told_of_even_where_its_code_cannot_be_interrupted(
    tiny_study, elsewhere, tmp_path, monkeypatch
):
    body = FAILING.replace("BODY", "__import__('time').sleep(3600) if params['wait'] else None")
    body = body.replace("SearchSpace({})", "SearchSpace({'wait': Categorical(choices=(False, True), default=False)})")
    body = body.replace("SearchSpace\n", "SearchSpace, Categorical\n")
    install(write_plugin(tmp_path, "failing-plugin", "failing", body), tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["failing"]\nhang_timeout = 2'))
    problem = problem_of(tiny_study)
    trial = Trial(problem.space.parse({**problem.space["failing"].default().flat, "failing.wait": True}))
    work = work_of(problem)
    worker = begun(work, elsewhere)
    worker.start(work.trial_order(trial))
    found = until(worker, "silent", work, trial)
    assert found[-1].content == "made no progress for 2.0 s"
    assert trial.outcome is None  # who runs the worker ends its process, and only then is the trial lost


def test_files_that_a_methods_settings_name_have_whole_paths_there(tiny_study):
    problem = problem_of(tiny_study)
    settings = {"fusion": {"sources": ["study.toml", "nowhere"], "more": {"share": 0.5}}}
    spec = problem.spec.model_copy(update={"methods": MethodsSection(settings=settings)})
    order = WorkOrder.of(replace(problem, spec=spec))
    found = {"sources": [str(tiny_study), "nowhere"], "more": {"share": 0.5}}
    assert order.spec.methods.settings == {"fusion": found}


def test_a_trial_whose_machine_failed_is_lost_there_and_goes_on(tiny_study):
    work = work_of(problem_of(tiny_study))
    trial = Trial(None)
    work.hear("the worker on 10.0.0.7", trial, Message("end", Outcome("INTERRUPTED", "no room on the disk")))
    assert trial.heard == ["the worker on 10.0.0.7: no room on the disk"]
    assert trial.outcome is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"versions": {"torch": "1.0"}}, r"the worker on 10\.0\.0\.7 .* torch is 1\.0 there and \d"),
        ({"base_digest": "sha256:1"}, "another base model under the same name"),
        ({"device": "cuda"}, "must have the same device as this machine, cpu, but has cuda"),
        ({"methods": ("lora",)}, "must have the same methods"),
    ],
)
def test_a_machine_that_would_compute_something_else_is_refused(tiny_study, changed, told):
    problem = problem_of(tiny_study)
    ready = about(problem)
    assert any("plugin of lora, autopeft" in name for name in ready.versions)
    if "versions" in changed:
        changed = {"versions": {**ready.versions, **changed["versions"]}}
    with pytest.raises(StudyError, match=told):
        work_of(problem).hear("the worker on 10.0.0.7", None, Message("ready", ready._replace(**changed)))


def test_what_a_worker_cannot_do_ends_the_study_in_one_sentence(tiny_study):
    work = work_of(problem_of(tiny_study))
    with pytest.raises(SpecError, match=r"^the worker on 10\.0\.0\.7: no such column"):
        work.hear("the worker on 10.0.0.7", None, Message("raise", SpecError("no such column")))
    with pytest.raises(StudyError, match="cannot go on: KeyError: 'x'"):
        work.hear("the worker on 10.0.0.7", None, Message("broken", "KeyError: 'x'"))
