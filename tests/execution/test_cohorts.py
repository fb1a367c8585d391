"""Trials that share a pass: told of their rungs as alone, stopped and replaced one by one, and never lost."""

import errno
import itertools
import json
import shutil
from dataclasses import dataclass, field, replace

import pytest
import torch

from autopeft.common.exceptions import SpecError
from autopeft.execution import cohort_choice
from autopeft.execution.cohorts import Cohorts
from autopeft.execution.in_process import InProcess
from autopeft.execution.outcome import Outcome
from autopeft.execution.problem import Problem
from autopeft.execution.runner import Findings
from autopeft.methods.registry import discover
from autopeft.models.device import Device
from autopeft.search.trial import Trial
from autopeft.study.file import StudySpec
from autopeft.study.folder import CHECKPOINTS
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, INTERRUPTED, PRUNED
from autopeft.training.cohort import Cohort
from tests.conftest import autopeft_here


@pytest.fixture
def study(tiny_study):
    """A study in which several candidates share a pass, and nothing is dropped."""
    model = tiny_study.parent / "model"
    folder = model.resolve()
    model.unlink()
    shutil.copytree(folder, model)
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    text = tiny_study.read_text().replace('packing = "off"', 'packing = "on"').replace("learning_rate = 0.02\n", "")
    text = text.replace('name = "tiny"', 'name = "tiny"\noutput = "outputs/tiny"')
    tiny_study.write_text(text.replace("[validation]", "cohort = 3\n[validation]"))
    return tiny_study


def problem_of(study):
    return Problem.from_spec(StudySpec.from_file(study), discover())


@dataclass
class Recording:
    """A trial that writes down what it is told; it stops after as many rungs as it `bears`."""

    candidate: object
    bears: int = 99
    rungs: list = field(default_factory=list)
    outcome: Outcome | None = None
    usage: object = None

    def estimated(self, usage):
        pass

    def settled(self, packing):
        pass

    def started(self, usage):
        assert self.usage is None, "started once"
        self.usage = usage

    def rung(self, rung):
        self.rungs.append(rung)
        return "it fell behind" if len(self.rungs) >= self.bears else None

    def end(self, outcome):
        assert self.outcome is None, "ended once"
        self.outcome = outcome


def candidates(problem, name="lora"):
    """Some of other sizes, rates and lengths."""
    default = problem.space[name].default()
    key, sizes = {"lora": ("r", (8, 2, 5, 3)), "adapter": ("reduction_factor", (4, 16, 8, 5))}[name]
    hypers = [
        replace(default.hyper, learning_rate=rate, epochs=epochs, weight_decay=decay)
        for rate, epochs, decay in ((5e-3, 4, 0.0), (2e-2, 3, 0.1), (1e-3, 4, 0.01), (1e-2, 2, 0.05))
    ]
    return [
        replace(default, params={**default.params, key: size}, hyper=hyper)
        for size, hyper in zip(sizes, hypers, strict=True)
    ]


def run(problem, trials, backend=None):
    """Run trials to their ends, a next one as soon as there is room; returns the most that ran at a time."""
    waiting, most = list(trials), 0
    with backend or Cohorts(problem, 3, lambda: Findings({}, {}), print) as running:
        while True:
            while running.free and waiting:
                running.give(waiting.pop(0))
            most = max(most, sum(bool(trial.usage and not trial.outcome) for trial in trials))
            if not running.busy:
                return most
            running.poll()


@pytest.mark.parametrize("name", ["lora", "adapter"])
def test_trials_that_share_a_pass_have_the_scores_and_losses_that_they_have_alone(study, name):
    problem = problem_of(study)
    together = [Recording(one) for one in candidates(problem, name)]
    assert run(problem, together) == 3
    shutil.rmtree(problem.spec.output)
    alone = [Recording(one) for one in candidates(problem, name)]
    run(problem, alone, InProcess(problem, lambda: Findings({}, {}), print))
    for one, other in zip(together, alone, strict=True):
        assert one.outcome.state == other.outcome.state == COMPLETE
        assert one.outcome.execution.candidates == 3
        assert other.outcome.execution.candidates == 1
        assert [rung.epoch for rung in one.rungs] == [rung.epoch for rung in other.rungs]
        assert [rung.scores for rung in one.rungs] == [rung.scores for rung in other.rungs]
        for mine, own in zip(one.rungs, other.rungs, strict=True):
            assert mine.losses == pytest.approx(own.losses, abs=2e-5)
        assert one.outcome.rungs == tuple(one.rungs)
        assert one.usage.trainable_params == other.usage.trainable_params
        assert one.usage.memory.peak > other.usage.memory.peak, "it is that of the whole pass"


def test_a_trial_that_stops_makes_room_for_the_next_and_changes_no_other(study):
    problem = problem_of(study)
    trials = [Recording(one, bears=1 if index == 1 else 99) for index, one in enumerate(candidates(problem))]
    told = []
    for trial in trials:
        trial.end = lambda outcome, trial=trial: (told.append(trial), setattr(trial, "outcome", outcome))
    assert run(problem, trials) == 3
    assert [trial.outcome.state for trial in trials] == [COMPLETE, PRUNED, COMPLETE, COMPLETE]
    assert trials[1].outcome.reason == "it fell behind"
    assert told[0] is trials[1]
    shutil.rmtree(problem.spec.output)
    alone = [Recording(one) for one in candidates(problem)]
    run(problem, alone, InProcess(problem, lambda: Findings({}, {}), print))
    for one, other in zip(trials, alone, strict=True):
        for mine, own in zip(one.rungs, other.rungs, strict=False):
            assert mine.scores == own.scores
            assert mine.losses == pytest.approx(own.losses, abs=2e-5)


def test_after_an_interruption_every_trial_goes_on_from_its_rung(study, monkeypatch):
    problem = problem_of(study)
    whole = [Recording(one) for one in candidates(problem)]
    run(problem, whole)
    shutil.rmtree(problem.spec.output)
    first = [Recording(one) for one in candidates(problem)]
    tell = Recording.rung

    def interrupted(trial, rung):
        if rung.number == 2:
            raise KeyboardInterrupt
        return tell(trial, rung)

    monkeypatch.setattr(Recording, "rung", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(problem, first)
    monkeypatch.setattr(Recording, "rung", tell)
    steps = []
    train = Cohort.train
    monkeypatch.setattr(
        Cohort, "train", lambda cohort, count: (steps.append(count * len(cohort.members)), train(cohort, count))
    )
    again = [Recording(one) for one in candidates(problem)]
    run(problem, again)
    for one, other in zip(again, whole, strict=True):
        assert one.outcome.state == COMPLETE
        assert [rung.scores for rung in one.rungs] == [rung.scores for rung in other.rungs]
        for mine, own in zip(one.rungs, other.rungs, strict=True):
            assert mine.losses == pytest.approx(own.losses, abs=2e-5)
    per_epoch = -(-max(len(fold.train) for fold in problem.folds) // 8)
    assert sum(steps) < per_epoch * sum(one.hyper.epochs for one in candidates(problem)), "not from the beginning"


def test_as_many_share_a_pass_as_the_memory_limit_allows(study):
    problem = problem_of(study)
    largest = candidates(problem)[0]
    problem.packed["lora"] = False
    single = replace(problem.cost_estimator(largest).execution, folds=2)
    two, three = (problem.cost_estimator.predict(largest, replace(single, candidates=count)).peak for count in (2, 3))
    limit = (two + three) // 2
    study.write_text(study.read_text() + f"[budget]\nmax_gpu_memory = {limit}\n")
    problem = problem_of(study)
    trials = [Recording(one) for one in candidates(problem)]
    assert run(problem, trials) == 2
    assert [trial.outcome.state for trial in trials] == [COMPLETE] * 4
    assert {trial.outcome.execution.candidates for trial in trials[:2]} == {2}
    for trial in trials:
        assert trial.usage.memory.peak <= limit
        assert trial.outcome.measured_memory <= limit


def test_where_a_pass_fails_each_trial_goes_on_alone_and_is_told_of_no_rung_twice(study, monkeypatch):
    problem, said = problem_of(study), []
    train, calls = Cohort.train, []

    def failing(cohort, steps):
        calls.append(steps)
        if len(calls) == 2:
            raise RuntimeError("no kernel for this shape")
        train(cohort, steps)

    monkeypatch.setattr(Cohort, "train", failing)
    trials = [Recording(one) for one in candidates(problem)]
    run(problem, trials, Cohorts(problem, 3, lambda: Findings({}, {}), said.append))
    for trial in trials:
        assert trial.outcome.state == COMPLETE
        assert [rung.number for rung in trial.rungs] == list(range(1, len(trial.rungs) + 1))
    assert len(calls) == 2
    assert len(said) == 1
    assert "no kernel for this shape" in said[0]


def test_candidates_that_would_change_each_other_train_alone(study, monkeypatch):
    problem, said = problem_of(study), []
    monkeypatch.setattr(type(problem.space["lora"].method), "factors", lambda *_: {})
    trials = [Recording(one) for one in candidates(problem)]
    backend = Cohorts(problem, 3, lambda: Findings({}, {}), said.append)
    run(problem, trials, backend)
    assert [trial.outcome.state for trial in trials] == [COMPLETE] * 4
    assert {trial.outcome.execution.candidates for trial in trials[1:3]} == {1}
    assert said == [
        "Candidates of lora train one after the other: when they share a pass, their gradients are not those that they "
        "have alone."
    ]


def test_one_that_diverges_fails_and_the_others_do_not_notice(study):
    problem = problem_of(study)
    good, bad, *_ = candidates(problem)
    bad = replace(bad, hyper=replace(bad.hyper, learning_rate=1e30, warmup_ratio=0.0))
    trials = [Recording(good), Recording(bad)]
    run(problem, trials)
    assert [trial.outcome.state for trial in trials] == [COMPLETE, FAIL]
    assert "no longer a finite number" in trials[1].outcome.reason
    shutil.rmtree(problem.spec.output)
    alone = Recording(good)
    run(problem, [alone], InProcess(problem, lambda: Findings({}, {}), print))
    assert [rung.scores for rung in alone.rungs] == [rung.scores for rung in trials[0].rungs]


def test_a_task_that_raises_on_a_trials_answers_fails_that_trial_alone(study, monkeypatch):
    problem, asked = problem_of(study), []
    kind = type(problem.task)

    def calibrated(task, answers, truths):
        asked.append(len(answers))
        if len(asked) == 1:
            raise ValueError("no threshold suits these answers")
        return {"threshold": 0.5}

    monkeypatch.setattr(kind, "calibrates", True)
    monkeypatch.setattr(kind, "calibrated", calibrated)
    same = [replace(one, hyper=replace(one.hyper, epochs=2)) for one in candidates(problem)[:2]]
    trials = [Recording(one) for one in same]
    assert run(problem, trials) == 2
    assert [trial.outcome.state for trial in trials] == [FAIL, COMPLETE]
    assert trials[0].outcome.reason == "ValueError: no threshold suits these answers"
    assert trials[1].outcome.facts == {"threshold": 0.5}
    assert asked == [len(problem.rows.train)] * 2


def test_a_machine_that_fails_on_a_trials_answers_loses_none_of_its_pass(study, monkeypatch):
    problem, asked = problem_of(study), []

    def calibrated(task, answers, truths):
        asked.append(1)
        if len(asked) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return {}

    monkeypatch.setattr(type(problem.task), "calibrates", True)
    monkeypatch.setattr(type(problem.task), "calibrated", calibrated)
    same = [replace(one, hyper=replace(one.hyper, epochs=2)) for one in candidates(problem)[:2]]
    trials = [Recording(one) for one in same]
    run(problem, trials)
    assert [trial.outcome.state for trial in trials] == [INTERRUPTED] * 2, "both run again, from where they were"


def test_a_time_limit_holds_for_a_trials_share_of_the_passes(study):
    study.write_text(study.read_text() + "[budget]\nmax_trial_seconds = 0.001\n")
    problem = problem_of(study)
    trials = [Recording(one) for one in candidates(problem)[:2]]
    run(problem, trials)
    assert [trial.outcome.state for trial in trials] == [INFEASIBLE] * 2
    assert "max_trial_seconds" in trials[0].outcome.reason


def test_a_method_that_writes_into_the_base_model_fails_with_all_in_its_pass(study, monkeypatch):
    problem = problem_of(study)
    train = Cohort.train

    def writing(cohort, steps):
        train(cohort, steps)
        with torch.no_grad():
            next(iter(problem.base.module.parameters())).add_(1.0)

    monkeypatch.setattr(Cohort, "train", writing)
    trials = [Recording(one, bears=1) for one in candidates(problem)[:2]]
    before = next(iter(problem.base.module.parameters())).clone()
    run(problem, trials)
    assert [trial.outcome.state for trial in trials] == [FAIL] * 2
    assert "changed weights of the base model" in trials[1].outcome.reason
    assert torch.equal(next(iter(problem.base.module.parameters())), before)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("trials = 4", "trials = 4\nworkers = 2", "`workers` in \\[search\\] is more than 1"),
        ('packing = "on"', 'packing = "off"', '`packing` in \\[validation\\] is "off"'),
    ],
    ids=["workers", "packing"],
)
def test_settings_that_exclude_it_are_refused(study, old, new, told):
    study.write_text(study.read_text().replace(old, new))
    with pytest.raises(SpecError, match=told):
        cohort_choice.require(problem_of(study))


def test_by_itself_it_is_one_on_a_cpu_and_a_share_of_the_trials_on_a_gpu(study):
    study.write_text(study.read_text().replace("cohort = 3\n", "").replace("trials = 4", "trials = 40"))
    problem = problem_of(study)
    assert cohort_choice.together(problem) == 1
    on_gpu = replace(problem, device=Device("cuda", torch.bfloat16))
    assert cohort_choice.together(on_gpu) == 5
    assert cohort_choice.together(replace(on_gpu, shares=on_gpu.shares * 2)) == 1
    assert cohort_choice.together(replace(on_gpu, device=Device("cuda", torch.float16))) == 1
    few = on_gpu.spec.model_copy(update={"search": on_gpu.spec.search.model_copy(update={"trials": 12})})
    assert cohort_choice.together(replace(on_gpu, spec=few)) == 1


def test_a_whole_study_draws_trials_alike_and_is_the_same_again(study):
    text = study.read_text().replace("trials = 4", "trials = 9").replace('"prefix_tuning"', '"bitfit"')
    study.write_text(text.replace("cohort = 3", "cohort = 3\nrace = 0"))
    results = []
    for _ in range(2):
        done = autopeft_here("run", study, "--json", cwd=study.parent)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
        shutil.rmtree(study.parent / "outputs")
    timed = ("seconds", "measured_memory")
    records = [
        [{key: value for key, value in record.items() if key not in timed} for record in result["records"]]
        for result in results
    ]
    assert records[0] == records[1]
    found = results[0]["records"]
    assert [record["number"] for record in found] == list(range(9))
    assert all("3 candidates at a time" in record["execution"] for record in found)
    drawn = [record["params"] for record in found[3:]]  # after the defaults
    kinds = [
        {key: value for key, value in params.items() if key in ("method", f"{params['method']}.layers")}
        for params in drawn
    ]
    assert any(one == two for one, two in itertools.pairwise(kinds))
    assert all(record["state"] in (COMPLETE, PRUNED) for record in found)


def test_a_study_that_is_interrupted_goes_on_with_every_trial_once(study, monkeypatch):
    text = (
        study.read_text()
        .replace("trials = 4", "trials = 7")
        .replace('["adapter", "lora", "prefix_tuning"]', '["lora"]')
    )
    study.write_text(text.replace("cohort = 3", "cohort = 3\nrace = 0"))
    tell, told = Trial.rung, []

    def interrupted(trial, rung):
        told.append((trial.number, rung.number))
        if len(told) == 6:
            raise KeyboardInterrupt
        return tell(trial, rung)

    with monkeypatch.context() as patch:
        patch.setattr(Trial, "rung", interrupted)
        assert autopeft_here("run", study, "--json", cwd=study.parent).returncode == 1
    left = [path.name for path in (study.parent / "outputs" / "tiny" / CHECKPOINTS).iterdir()]
    assert len(left) >= 2, "those that shared the pass"
    done = autopeft_here("run", study, "--json", cwd=study.parent)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["records"]
    assert len(found) == 7
    assert all(record["state"] in (COMPLETE, PRUNED) for record in found)
    assert len({json.dumps(record["params"], sort_keys=True) for record in found}) == 7
    assert not (study.parent / "outputs" / "tiny" / CHECKPOINTS).exists()
