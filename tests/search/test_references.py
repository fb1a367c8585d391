"""Rows of reference that need no add-on: the head alone, every weight, and a base model that answers by itself."""

import json
from dataclasses import replace

import pytest
import torch

from autopeft.budget.time_watch import OverTimeError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import attach, trainable
from autopeft.reporting.content import gather
from autopeft.search import references
from autopeft.search.references import FULL, HEAD, FullFineTuning, HeadAlone, Patience, candidates, refusal
from autopeft.search.refit import train_whole
from autopeft.search.select_winner import Table, _references
from autopeft.study.file import StudySpec
from autopeft.study.folder import PREDICTIONS
from autopeft.study.predictions import HeldOut
from autopeft.testing.tiny import tiny_base
from tests.conftest import THREE, announcing, autopeft_here, write_tiny_study
from tests.search.test_run import edit, run_study, store


@pytest.fixture(scope="module")
def problem(tmp_path_factory, tiny_model):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("references"))
        study = write_tiny_study(tmp_path_factory.mktemp("study"), tiny_model)
        edit(study, ("references = false", "references = true"))
        return Problem.from_spec(StudySpec.from_file(study), discover())


def test_the_head_alone_trains_the_head_and_full_fine_tuning_every_weight():
    base = tiny_base("bert")
    head = trainable(attach(base, HeadAlone(), {}))
    assert {name.partition(".")[0] for name in head} == {"classifier"}
    model = attach(base, FullFineTuning(), {})
    assert set(trainable(model)) == {name for name, _ in base.module.named_parameters()}
    theirs = {parameter.data_ptr() for parameter in base.module.parameters()}
    assert not theirs & {parameter.data_ptr() for parameter in model.parameters()}
    assert not any(parameter.requires_grad for parameter in base.module.parameters())


def test_weights_that_two_modules_share_are_shared_still():
    base = tiny_base("bert")
    model = base.copy()
    model.get_submodule("bert.pooler.dense").weight = model.get_submodule("bert.encoder.layer.0.output.dense").weight
    full = FullFineTuning().apply(model, {}, base.spec)
    one, two = (full.get_submodule(name).weight for name in ("bert.pooler.dense", "bert.encoder.layer.0.output.dense"))
    assert one is two
    assert one.requires_grad


def test_both_are_trained_as_long_as_the_longest_default_and_learn(problem):
    head, full = candidates(problem)
    assert head.hyper.epochs == full.hyper.epochs == 4
    assert (full.hyper.learning_rate, full.hyper.warmup_ratio) == (5e-5, 0.1)
    still = {name: value.clone() for name, value in problem.base.module.named_parameters()}
    faster = replace(full, hyper=replace(full.hyper, learning_rate=1e-3, epochs=1))
    losses = [train_whole(problem, replace(faster, hyper=replace(faster.hyper, epochs=n))).loss for n in (1, 4)]
    assert losses[1] < losses[0]
    assert all(torch.equal(value, still[name]) for name, value in problem.base.module.named_parameters())
    assert problem.weight_check.restore() == []


def test_what_has_no_room_or_cannot_be_trained_is_refused_with_the_reason(problem, monkeypatch):
    head, full = candidates(problem)
    assert refusal(problem, head) == refusal(problem, full) == ""
    monkeypatch.setattr(references, "free_memory", lambda: 1000.0)
    assert "at its peak, but only" in refusal(problem, full)
    assert refusal(problem, head) == ""
    model = problem.spec.model.model_copy(update={"quantization": "4bit"})
    quantized = replace(problem, spec=problem.spec.model_copy(update={"model": model}))
    assert refusal(quantized, full) == "weights in 4bit cannot be trained"
    headless = replace(problem, base=replace(problem.base, spec=replace(problem.base.spec, head=())))
    assert refusal(headless, head) == "the model has no head to train alone"


def test_what_takes_too_long_is_stopped_and_what_is_late_is_not_begun(problem, monkeypatch, tmp_path):
    _, full = candidates(problem)
    with pytest.raises(OverTimeError, match="it would take"):
        train_whole(problem, full, watch=Patience(1e-6))
    table, said = Table(), []
    assert _references(problem, table, 1.0, lambda: True, announcing(tmp_path, said)) == {HEAD: None, FULL: None}
    assert table.notes == dict.fromkeys((HEAD, FULL), "the study's time is up")
    assert said == [f"No score of {name} on the held-out rows: the study's time is up" for name in (HEAD, FULL)]
    monkeypatch.setattr(references, "LEAST_SECONDS", 0.0)
    found = _references(problem, table, 1e-6, lambda: False, announcing(tmp_path, said))
    assert found == {HEAD: None, FULL: None}
    assert all(note.startswith("it would take") for note in table.notes.values())


def test_a_failure_costs_one_row_alone(problem, monkeypatch, tmp_path):
    def failing(self, model, params, spec):
        raise ValueError("planted")

    monkeypatch.setattr(HeadAlone, "apply", failing)
    table = Table()
    found = _references(problem, table, 1e6, lambda: False, announcing(tmp_path))
    assert found[HEAD] is None
    assert found[FULL] is not None
    assert table.notes[HEAD] == "it failed: ValueError: planted"
    assert table.written["head_alone"] is None


def test_a_finished_study_says_that_it_trains_none_and_how_to_have_them(tiny_study):
    edit(
        tiny_study, (THREE, 'methods = ["lora"]\nrace = 0'), ("trials = 4", "trials = 2"), ("epochs = 4", "epochs = 1")
    )
    earlier, output = run_study(tiny_study), tiny_study.parent / "outputs" / "tiny"
    edit(tiny_study, ("references = false", "references = true"), ("race = 0", "race = 0.5"))
    done = autopeft_here("run", tiny_study.name, cwd=tiny_study.parent)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "`references` and `race` in [search] are switched on, but the study has its winner already" in said
    assert "outputs/tiny/winner elsewhere and run the same command again" in said
    assert json.loads((output / "result.json").read_text())["test"] == earlier["test"]
    (output / "winner").rename(tiny_study.parent / "earlier")
    assert set(run_study(tiny_study)["test"]["references"]) == {HEAD, FULL}


@pytest.mark.exhaustive
def test_a_study_shows_them_on_the_screen_in_mlflow_in_the_report_and_in_the_readme(tiny_study):
    edit(
        tiny_study,
        (THREE, 'methods = ["lora"]'),
        ("trials = 4", "trials = 1"),
        ("references = false", "references = true"),
    )
    result, output = run_study(tiny_study), tiny_study.parent / "outputs" / "tiny"
    scores = result["test"]["references"]
    assert set(scores) == {HEAD, FULL}
    (parent,), _ = store(output)
    assert parent.data.metrics["test_head_alone"] == pytest.approx(scores[HEAD])
    assert parent.data.metrics["test_full_fine-tuning"] == pytest.approx(scores[FULL])
    kept = HeldOut.read(output / PREDICTIONS)
    assert {"head_alone", "full_fine-tuning"} <= set(kept.predictions)
    test = gather(output).test
    shown = {entry.name: entry for entry in test.scores}
    assert shown["the head alone"].score == scores[HEAD]
    assert shown["full fine-tuning"].interval is not None
    assert {"the head alone", "full fine-tuning"} & {comparison.other for comparison in test.comparisons}
    readme = (output / "winner" / "README.md").read_text()
    assert f"| head alone | {scores[HEAD]:.4f} |" in readme
    edit(tiny_study, ("references = true", "references = false"))
    assert run_study(tiny_study)["test"] == result["test"], "a study that is finished stays so"
