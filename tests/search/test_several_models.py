"""A study that chooses among base models: from its file to a winner on one of them, and what it does not go on with."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import create_trial
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import autopeft as api
from autopeft.common.exceptions import BudgetError, MethodError, ModelError, SpecError
from autopeft.common.locate import NotFoundError
from autopeft.execution import preparation
from autopeft.execution.folds import FreshFolds
from autopeft.execution.preparation import made_ready
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.search import racing, resume, run, story
from autopeft.search.select_winner import _elsewhere
from autopeft.search.warm_start import earlier_winners
from autopeft.study.archive import open_archive
from autopeft.study.file import StudySpec
from autopeft.study.raced import Raced
from autopeft.study.record import RECORD, TrialRecord, plain
from tests.conftest import DTYPE, announcing, autopeft_here, saved_tiny, tiny_rows
from tests.models.test_digest import cached
from tests.search.test_choosing import model, study_file
from tests.search.test_racing import FOLDS, Log, close
from tests.search.test_run import edit, run_study, store
from tests.tiny_models import tiny

__all__ = ["cached", "model"]

STUDY = f"""
name = "chosen"
[model]
candidates = ["bert", "models/modern"]
dtype = "{DTYPE}"
[task]
kind = "text-classification"
[data]
train = "rows.csv"
[search]
methods = ["bitfit", "lora"]
trials = 3
epochs = 2
batch_size = 16
learning_rate = 0.02
portfolio = false
references = false
race = 0
[validation]
folds = 2
packing = "off"
[budget]
max_trainable_params = "50%"
"""


@pytest.fixture(scope="module")
def modern(tmp_path_factory) -> Path:
    """A tiny ModernBERT, which has no biases."""
    return saved_tiny("modernbert", tmp_path_factory.mktemp("modern") / "model")


def write(folder: Path, tiny_model: Path, modern: Path) -> Path:
    """A study file of two base models, beside them and `tiny_rows`."""
    tiny_rows().to_csv(folder / "rows.csv", index=False)
    (folder / "models").mkdir()
    (folder / "bert").symlink_to(tiny_model)
    (folder / "models" / "modern").symlink_to(modern)
    (folder / "study.toml").write_text(STUDY)
    return folder / "study.toml"


@pytest.fixture
def study(tmp_path, tiny_model, modern) -> Path:
    return write(tmp_path, tiny_model, modern)


@pytest.fixture(scope="module")
def problem(tmp_path_factory, tiny_model, modern):
    path = write(tmp_path_factory.mktemp("ready"), tiny_model, modern)
    return made_ready(StudySpec.from_file(path), discover())[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, modern):
    """A study that ran to its end, and its result."""
    path = write(tmp_path_factory.mktemp("finished"), tiny_model, modern)
    return path, run_study(path)


def test_base_models_share_rows_and_splits_and_have_all_else_for_themselves(problem):
    bert, modern = problem.each
    assert (bert.label, modern.label) == ("bert", "modern")
    assert bert.rows is modern.rows is problem.rows
    for one, other in zip(bert.folds, modern.folds, strict=True):
        np.testing.assert_array_equal(one.validation, other.validation)
    fresh = [FreshFolds(one) for one in problem.each]
    assert fresh[0].first(4) == fresh[1].first(4)
    for number in fresh[0].first(4):
        np.testing.assert_array_equal(fresh[0][number].validation, fresh[1][number].validation)
    assert bert.base is not modern.base
    assert bert.base_digest != modern.base_digest
    limits = [one.budget.values["max_trainable_params"] for one in problem.each]
    assert limits == [one.base.spec.num_parameters // 2 for one in problem.each]
    assert bert.rung_ends(2) == modern.rung_ends(2)


def test_a_method_may_be_on_some_of_the_models_alone(problem):
    assert [*problem.space] == ["bitfit on bert", "lora on bert", "lora on modern"]
    assert [*problem.refused] == ["bitfit on modern"]
    assert {*problem.origins} >= {*problem.space}
    default = problem.space["lora on modern"].default()
    assert problem.of(default) is problem.models["modern"]
    assert problem.of(problem.space["lora on bert"].default()) is problem.models["bert"]
    assert problem.models["modern"].own({"lora on modern": 1, "lora on bert": 2}) == {"lora": 1}


def test_a_study_tells_of_each_model_what_differs(problem):
    told = story.given_settings(problem)
    bert, modern = (one.budget.values["max_trainable_params"] for one in problem.each)
    assert told["model"] == "bert: bert; modern: models/modern"
    assert told["max_trainable_params"] == f"bert: {bert}; modern: {modern}"
    assert told["train_rows"] == len(problem.rows.train)
    assert told["methods"] == "bitfit, lora"
    assert story.description_of(problem) == "Search over bitfit, lora for text-classification on bert or models/modern."


def test_of_other_models_defaults_are_trained_at_the_end_that_completed_in_the_search(problem):
    best, near, far = (problem.space[name].default() for name in ("bitfit on bert", "lora on bert", "lora on modern"))
    assert _elsewhere(near, best, []) == ""
    assert "another base model" in _elsewhere(far, best, [])
    record = TrialRecord(0, far.name, far.name, "COMPLETE", "", 0.5, (), (), 1, 1, 1, 1, 1, 1.0, params=far.flat)
    assert _elsewhere(far, best, [record]) == ""
    assert _elsewhere(far, best, [replace(record, state="PRUNED")])


def test_what_is_on_one_model_is_not_asked_of_all_of_them(problem):
    with pytest.raises(AssertionError, match="own problem"):
        _ = problem.cost_estimator


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("trials = 3", "trials = 1", SpecError, "`trials` in .* must be at least 2"),
        ("trials = 3", "trials = 3\nworkers = 2", SpecError, "`workers` in .* must be 1"),
        ('"models/modern"]', '"./bert"]', SpecError, "must be different models, but bert and ./bert are the same"),
        ('["bitfit", "lora"]', '["bitfit"]', MethodError, "must support the model ModernBert"),
        ("bert", "nowhere.txt", NotFoundError, "does not exist"),
        (
            '"models/modern"]',
            '"models"]',
            ModelError,
            r"^\[model\] candidates must be .*models holds no config\.json",
        ),
    ],
)
def test_what_several_base_models_must_be(study, old, new, error, words):
    edit(study, (old, new))
    with pytest.raises(error, match=words) as refused:
        made_ready(StudySpec.from_file(study), discover())
    assert "name_or_path" not in str(refused.value) or "give one" in str(refused.value)


def test_a_method_that_no_model_supports_is_told(study, modern):
    (study.parent / "bert").unlink()
    (study.parent / "bert").symlink_to(modern)
    other = study.parent / "models" / "other"
    tiny("llama").save_pretrained(other)
    for path in modern.iterdir():
        if "token" in path.name or path.name == "vocab.txt":
            (other / path.name).write_bytes(path.read_bytes())
    edit(study, ("models/modern", "models/other"))
    with pytest.raises(MethodError, match=r"bitfit supports none\. bitfit on bert: .*; bitfit on other: "):
        made_ready(StudySpec.from_file(study), discover())


def test_the_budget_is_asked_of_every_model_and_one_with_room_is_enough(study):
    edit(study, ('max_trainable_params = "50%"', "max_trainable_params = 1"))
    problem = made_ready(StudySpec.from_file(study), discover())[0]
    with pytest.raises(BudgetError, match="nothing in the search space fits"):
        preparation.check(problem)
    problem.models["modern"].budget.values["max_trainable_params"] = 10**6
    preparation.check(problem)


def test_a_study_ends_with_a_winner_on_one_of_its_models_and_goes_on_as_it_was(finished):
    study, result = finished
    output = study.parent / "outputs" / "chosen"
    assert [record["method"] for record in result["records"]] == ["bitfit on bert", "lora on modern", "lora on bert"]
    best = result["best"]
    assert best["params"]["method"] in ("bitfit", "lora")
    label = best["params"][f"{best['params']['method']}.model"]
    assert best["method"].endswith(f" on {label}")
    assert {*result["test"]["defaults"]} == {"bitfit on bert", "lora on bert", "lora on modern"}
    assert all(score is not None for score in result["test"]["defaults"].values())

    card = json.loads((output / "winner" / "autopeft.json").read_text())
    assert card["base_model"] == str((study.parent / {"bert": "bert", "modern": "models/modern"}[label]).resolve())
    rows = pd.read_csv(study.parent / "rows.csv")
    assert len(api.load(output / "winner").predict(rows)) == len(rows)

    (parent,), trials = store(output)
    assert "bert" in parent.data.params["model"]
    assert {run.data.params["model"] for run in trials} == {"bert", "modern"}
    assert {run.data.params["method"] for run in trials} == {"bitfit", "lora"}
    archive = open_archive(output)
    assert {*archive.defaults} == {"bitfit on bert", "lora on bert", "lora on modern"}
    shown = autopeft_here("report", "study.toml", "--json", cwd=study.parent)
    assert json.loads(shown.stdout)["model"] == "bert or models/modern"

    again = run_study(study)
    assert again["records"] == result["records"]
    assert again["test"] == result["test"]


def test_a_study_does_not_go_on_with_other_models(finished):
    study, _ = finished
    output, text = study.parent / "outputs" / "chosen", study.read_text()
    spec = StudySpec.from_file(study).model_copy(update={"output": output})
    attrs = open_archive(spec.output).attrs
    before = attrs[resume.GIVEN]
    assert {*before[resume.DIGESTS]} == {"bert", "models/modern"}
    assert before["kinds"]["model.candidates.1"] == "local"
    try:
        study.write_text(text.replace('["bert", "models/modern"]', '["models/modern", "bert"]'))
        done = autopeft_here("run", "study.toml", cwd=study.parent)
        assert done.returncode == 2
        assert "model.candidates: " in done.stderr
    finally:
        study.write_text(text)
    now = {**before, resume.DIGESTS: {**before[resume.DIGESTS], "models/modern": "sha256:" + "0" * 64}}
    with pytest.raises(ModelError, match=r"base model models/modern is not the one that.*restore it"):
        resume.check(before, now, spec)
    assert resume.commits_of(spec) == {}
    kept = {**before, resume.DIGESTS: {"bert": "", "models/modern": "x"}}
    resume.keep_known({**before, resume.DIGESTS: {"bert": "commit:1"}}, kept)
    assert kept[resume.DIGESTS] == {"bert": "commit:1", "models/modern": "x"}


def test_a_model_that_has_vanished_is_not_looked_for_on_the_hub(finished, tmp_path):
    study, _ = finished
    moved = (study.parent / "bert").rename(tmp_path / "bert")
    try:
        done = autopeft_here("run", "study.toml", cwd=study.parent)
    finally:
        moved.rename(study.parent / "bert")
    assert done.returncode == 2
    assert "`candidates` in [model]" in done.stderr
    assert "no longer exists" in done.stderr


def test_an_earlier_winner_is_tried_on_its_own_model_or_else_on_each(finished, problem, tmp_path):
    study, result = finished
    earlier = str(study.parent / "outputs" / "chosen")
    starts, notes = earlier_winners([earlier], tmp_path, problem.space)
    assert [start.flat for start in starts] == [result["best"]["params"]]
    assert len(notes) == 1
    alone = problem.space.on("bert")
    starts, _ = earlier_winners([earlier], tmp_path, alone)
    assert [start.model for start in starts] == ["bert"]
    params = {"method": "lora", "lora.r": 3}
    (tmp_path / "result.json").write_text(json.dumps({"best": {"method": "lora", "params": params}}))
    starts, notes = earlier_winners(["."], tmp_path, problem.space)
    assert [(start.name, start.params["r"]) for start in starts] == [("lora on bert", 3), ("lora on modern", 3)]
    assert len(notes) == 2


def test_plan_and_recommend_tell_of_every_model(study):
    done = autopeft_here("plan", "study.toml", "--json", "--samples", "1", cwd=study.parent)
    assert done.returncode == 0, done.stderr
    plans = json.loads(done.stdout)["models"]
    names = {label: [entry["name"] for entry in plan["methods"]] for label, plan in plans.items()}
    assert names == {"bert": ["bitfit on bert", "lora on bert"], "modern": ["lora on modern"]}
    assert {*plans["modern"]["refused"]} == {"bitfit on modern"}
    assert plans["bert"]["budget"] != plans["modern"]["budget"]
    done = autopeft_here("recommend", "study.toml", "--json", cwd=study.parent)
    assert done.returncode == 0, done.stderr
    tried = [one["candidate"] for one in json.loads(done.stdout)["tried"]]
    assert tried == [f"{name}, its default" for name in ("bitfit on bert", "bitfit on modern", "lora on bert",
                                                         "lora on modern")]  # fmt: skip


def test_each_model_of_the_hub_stays_at_the_commit_it_had(study, cached):
    edit(study, ('"bert"', '"org/name"'))
    spec = StudySpec.from_file(study).model_copy(update={"output": study.parent / "outputs" / "hub"})
    problem = made_ready(spec, discover())[0]
    assert problem.each[0].base_digest == "commit:" + "a" * 40
    assert problem.kinds["model.candidates.0"] == "hub"
    run._open(problem, print)
    (cached / "refs" / "main").write_text("b" * 40)
    assert resume.commits_of(spec) == {"org/name": "a" * 40}
    again = made_ready(resume.as_begun(spec), discover(), commits=resume.commits_of(spec))[0]
    assert again.each[0].base_digest == "commit:" + "a" * 40
    run._open(again, print)
    with pytest.raises(ModelError, match="the base model org/name is not the one that"):
        run._open(made_ready(spec, discover())[0], print)


def other_weights(folder: Path) -> None:
    """Change the weights in a model's folder, by little."""
    path = folder / "model.safetensors"
    save_file({name: 1.01 * tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


def test_models_that_write_have_the_same_tokens(tmp_path, model):
    study = study_file(tmp_path, "one", 4, choose="")
    edit(study, ('name_or_path = "one"', 'candidates = ["one", "two"]'))
    for name in ("one", "two"):
        shutil.copytree(model, tmp_path / name)
    other_weights(tmp_path / "two")
    problem = made_ready(StudySpec.from_file(study), discover())[0]
    assert [*problem.space] == ["lora on one", "lora on two"]

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "two")
    tokenizer.add_tokens(["another"])
    tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(SpecError, match="must have the same tokens for causal-lm"):
        made_ready(StudySpec.from_file(study), discover())


@pytest.mark.exhaustive
def test_a_race_is_between_models(tmp_path, model):
    for name in ("one", "two"):
        shutil.copytree(model, tmp_path / name)
    other_weights(tmp_path / "two")
    study = close(tmp_path, "one")
    edit(study, ('name_or_path = "one"', 'candidates = ["one", "two"]'))
    problem = made_ready(StudySpec.from_file(study), discover())[0]
    kept = optuna.create_study(direction="maximize")
    for number, (part, folds) in enumerate(zip(problem.space.values(), FOLDS[:2], strict=True)):
        record = TrialRecord(number, part.name, part.name, "COMPLETE", "", float(np.mean(folds)), folds, (), 1, 100,
                             100, 1, 1, 1.0, epochs_trained=1.0, params=part.default().flat)  # fmt: skip
        kept.add_trial(create_trial(value=record.score, user_attrs={RECORD: plain(record)}))
    log, output = Log(), problem.spec.output
    output.mkdir(parents=True, exist_ok=True)
    racing.race(problem, racing.Books(kept, log, announcing(output), lambda: None, lambda: False), finished=False)
    assert {number for number, _, _ in log.folds} == {0, 1}
    raced = Raced.read(kept.user_attrs)
    assert raced.ruling
    own = {number: (fold, score) for number, fold, score in log.folds}
    for number, part in enumerate(problem.space.values()):
        fold, score = own[number]
        fresh = FreshFolds(alone := problem.of(part.default()))
        fresh.first(fold + 1)
        again = run_trial(fresh.problem(fold), part.default(), lambda rung: None)
        assert again.score == score, alone.label


@pytest.mark.exhaustive
def test_the_models_of_all_folds_may_win(study):
    study.write_text(study.read_text() + '[winner]\nform = "ensemble"\n')
    edit(study, ('["bitfit", "lora"]', '["lora"]'))
    run_study(study)
    winner = api.load(study.parent / "outputs" / "chosen" / "winner")
    assert len(winner.predict(["w1 w20 w30"])) == 1


@pytest.mark.exhaustive
def test_a_study_that_was_killed_goes_on_with_the_model_of_the_trial_it_was_at(study, finished, monkeypatch):
    began = preparation.Problem.at_hand

    def killed(problem, candidate):
        if candidate.name == "lora on modern":
            raise KeyboardInterrupt
        return began(problem, candidate)

    with monkeypatch.context() as patch:
        patch.setattr(preparation.Problem, "at_hand", killed)
        done = autopeft_here("run", "study.toml", cwd=study.parent)
    assert done.returncode == 1
    assert "interrupted" in done.stderr
    result = run_study(study)
    strip = [{**record, "seconds": 0, "measured_memory": 0, "number": 0} for record in result["records"]]
    whole = [{**record, "seconds": 0, "measured_memory": 0, "number": 0} for record in finished[1]["records"]]
    assert sorted(strip, key=lambda one: one["name"]) == sorted(whole, key=lambda one: one["name"])
