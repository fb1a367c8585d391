"""What serves of a winner: its refit, the mean of what its folds learnt, or the models of its folds together."""

import json
import pickle
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from autopeft_lora.mean import mean_of_products

import autopeft
from autopeft.budget.limits import Budget
from autopeft.common.exceptions import MethodError, PluginError, SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.contract import PeftMethod
from autopeft.methods.registry import discover
from autopeft.models.attach import attach, trainable
from autopeft.search import fold_average, refit_guard, select_winner
from autopeft.search.fold_average import put_values
from autopeft.search.fold_models import fold_models, kept_folds
from autopeft.search.served import AVERAGE, ENSEMBLE, REFIT, ensemble, require_mean, served
from autopeft.study.card import Card
from autopeft.study.file import StudySpec
from autopeft.study.sections import WinnerSection
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.collapse import COLLAPSED
from autopeft.training.learner import evaluate
from autopeft.winner.export import ExportError, export
from tests.conftest import DTYPE, THREE, announcing, autopeft_here, write_tiny_study
from tests.search.test_refit_guard import LONG, candidate_of, record_for, values
from tests.search.test_run import edit, run_study, store


@pytest.fixture(scope="module")
def learnt(tmp_path_factory, tiny_model):
    """A study's problem, a candidate whose folds learn, and where what they learnt is kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("served"))
        study = write_tiny_study(tmp_path_factory.mktemp("study"), tiny_model)
        problem = Problem.from_spec(StudySpec.from_file(study), discover())
        candidate = candidate_of(problem, epochs=LONG)
        checkpoint = kept_folds(problem, candidate)
        kept = tmp_path_factory.mktemp("kept") / "folds"
        checkpoint.folder.rename(kept)
        return problem, candidate, kept


@pytest.fixture
def folds(learnt):
    """The same; what the folds learnt is in its place, and after the test it is gone."""
    problem, candidate, kept = learnt
    checkpoint = Checkpoint.of(problem.spec.output, candidate.flat)
    shutil.copytree(kept, checkpoint.folder)
    yield problem, candidate, checkpoint
    checkpoint.remove()


def asking(problem, form, **budget):
    """The same study with that form, and limits."""
    spec = problem.spec.model_copy(update={"winner": WinnerSection(form=form)})
    return replace(problem, spec=spec, budget=Budget(**budget))


def test_of_pairs_of_a_and_b_the_products_are_averaged_and_of_all_else_the_tensors():
    torch.manual_seed(0)
    folds = [
        {"q.lora_A.x": torch.randn(4, 9), "q.lora_B.x": torch.randn(7, 4), "head.bias": torch.randn(3)} for _ in "abc"
    ]
    wanted = sum(fold["q.lora_B.x"] @ fold["q.lora_A.x"] for fold in folds) / 3
    found = mean_of_products(folds)
    u, sizes, v = torch.linalg.svd(wanted)
    nearest = u[:, :4] * sizes[:4] @ v[:4]
    assert torch.allclose(found["q.lora_B.x"] @ found["q.lora_A.x"], nearest, atol=1e-5)
    assert torch.allclose(found["head.bias"], sum(fold["head.bias"] for fold in folds) / 3)
    turned = [{**fold, "q.lora_A.x": -fold["q.lora_A.x"], "q.lora_B.x": -fold["q.lora_B.x"]} for fold in folds[:1]]
    same = mean_of_products([folds[0], *turned])  # equal products, though the means of their factors are zero
    product = folds[0]["q.lora_B.x"] @ folds[0]["q.lora_A.x"]
    assert torch.allclose(same["q.lora_B.x"] @ same["q.lora_A.x"], product, atol=1e-5)


def test_a_map_that_is_narrower_than_the_rank_keeps_its_shapes():
    folds = [{"q.lora_A.x": torch.randn(8, 3), "q.lora_B.x": torch.randn(3, 8)} for _ in "ab"]
    found = mean_of_products(folds)
    assert [found[name].shape for name in found] == [(8, 3), (3, 8)]
    wanted = sum(fold["q.lora_B.x"] @ fold["q.lora_A.x"] for fold in folds) / 2
    assert torch.allclose(found["q.lora_B.x"] @ found["q.lora_A.x"], wanted, atol=1e-5)


def test_the_mean_of_folds_serves_where_it_loses_no_more_than_they_do(folds, monkeypatch):
    problem, candidate, checkpoint = folds
    problem, said = asking(problem, AVERAGE), []
    each = [values(model) for model in fold_models(problem, candidate, checkpoint, [0, 1])]
    monkeypatch.setattr(fold_average, "BARRIER", 10.0)
    made = served(problem, candidate, None, said.append, wins=True)
    assert (made.form, made.told, said) == (AVERAGE, "", [])
    assert not checkpoint.folder.exists()
    names = list(trainable(made.models))
    bias = next(place for place, name in enumerate(names) if name.endswith("bias"))
    assert torch.allclose(values(made.models)[bias], (each[0][bias] + each[1][bias]) / 2)


def test_where_the_mean_of_folds_loses_more_the_refit_serves(folds, monkeypatch):
    problem, candidate, _ = folds
    problem, said, train_whole = asking(problem, AVERAGE), [], refit_guard.train_whole
    monkeypatch.setattr(refit_guard, "train_whole", lambda problem, *_: train_whole(problem, candidate_of(problem)))
    lora, record = type(candidate.method), record_for(candidate, state=COLLAPSED)  # once is enough
    monkeypatch.setattr(lora, "average", lambda self, folds, *_: {n: -9 * t for n, t in folds[0].items()})
    made = served(problem, candidate, record, said.append, wins=True)
    assert made.form == REFIT
    assert re.match(r"on training rows their mean loses .+, and the folds .+ on average, so it was refitted", made.told)
    assert len(said) == 1
    monkeypatch.setattr(lora, "average", PeftMethod.average)
    assert fold_average.averaged(problem, candidate, None) == (None, "lora has no mean of add-ons")
    assert served(problem, candidate, record, said.append, wins=False).form == REFIT, "a row of reference"
    assert len(said) == 1


def test_what_a_method_gives_as_the_mean_must_be_what_is_trained(learnt):
    problem, candidate, _ = learnt
    model = attach(problem.base, candidate.method, candidate.params)
    good = {name: value.detach() + 1 for name, value in trainable(model).items()}
    put_values(model, good, "lora")
    assert all(torch.equal(value, good[name]) for name, value in trainable(model).items())
    name = next(iter(good))
    for wrong in ({**good, "x": good[name]}, {**good, name: good[name][:1]}, {**good, name: good[name] * torch.nan}):
        with pytest.raises(PluginError, match="average"):
            put_values(model, wrong, "lora")


def test_the_models_of_folds_answer_together_from_their_folder(folds, tmp_path):
    problem, candidate, checkpoint = folds
    problem, folder = asking(problem, ENSEMBLE), tmp_path / "together"
    models = fold_models(problem, candidate, checkpoint, [0, 1])
    each = [evaluate(model, problem.test, [problem.test.everything], problem.task, problem.device) for model in models]
    made = select_winner._score(problem, candidate, folder, "x", [], announcing(tmp_path), wins=True)
    assert made.form == ENSEMBLE
    assert Card.read(folder).members == 2
    assert sorted(path.name for path in folder.glob("fold_*")) == ["fold_0", "fold_1"]
    assert not checkpoint.folder.exists()
    assert not np.allclose(each[0][0], each[1][0], atol=1e-3)
    assert np.allclose(made.answers, np.mean(each, axis=0)[0], atol=2e-2 if DTYPE != "float32" else 1e-4)

    together, rows = autopeft.load(folder), problem.rows.test
    assert np.allclose(made.answers, together.answers(rows))
    again = pickle.loads(pickle.dumps(together))
    assert np.array_equal(again.answers(rows), together.answers(rows))
    with pytest.raises(MethodError, match="the models of 2 folds answer together"):
        together.merge()
    for form in ("peft", "merged", "onnx", "serving"):
        with pytest.raises(ExportError, match=f"exported as mlflow, but not as {form}"):
            export(folder, tmp_path / form, form)
    path = folder / "fold_1" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(autopeft.AutopeftError, match="fold_1"):
        autopeft.load(folder)


def test_what_weighs_too_much_together_is_refitted_and_folds_that_collapsed_have_no_part(folds, monkeypatch):
    problem, candidate, _ = folds
    weight = problem.cost_estimator(candidate).weights.saved_bytes
    made = ensemble(asking(problem, ENSEMBLE, max_saved_size=1.5 * weight), candidate)
    assert re.fullmatch(r"together they weigh .+, over max_saved_size = .+", made)
    monkeypatch.setattr(Checkpoint, "rungs", lambda self, folds: 9)  # all that was kept is gone
    for left, told in (([1], "1 of 2 folds collapsed, and their models are left out"), ([], None)):
        monkeypatch.setattr(Checkpoint, "learnt", lambda self, folds, left=left: left)
        made = ensemble(asking(problem, ENSEMBLE), candidate)
        assert made == "all of them collapsed" if told is None else made.told == told


def test_a_trial_whose_files_are_damaged_has_no_folds_that_learnt(folds):
    _, _, checkpoint = folds
    assert checkpoint.learnt(2) == [0, 1]
    (checkpoint.folder / "0.safetensors").write_bytes(b"x")
    assert checkpoint.learnt(2) == [1]


def test_where_every_refit_collapses_the_models_of_the_folds_serve(folds, monkeypatch):
    problem, candidate, _ = folds
    said, record, train_whole = [], record_for(candidate), refit_guard.train_whole
    fast = candidate_of(problem, learning_rate=30.0)
    monkeypatch.setattr(refit_guard, "train_whole", lambda problem, candidate, run: train_whole(problem, fast, run))
    made = served(problem, candidate, record, said.append, wins=True)
    assert made.form == ENSEMBLE
    assert made.told.startswith("the refit collapsed, 3 times: ")
    assert made.told.endswith("so its fold models answer together")
    assert said[-1].endswith("so its fold models answer together.")
    assert len([model.train() for model in made.models]) == 2
    assert served(problem, candidate, record, said.append, wins=False).form == REFIT
    monkeypatch.setattr(type(problem.task), "averages", False)
    with pytest.raises(refit_guard.CollapsedError, match="the models of its folds cannot be used: answers of"):
        served(problem, candidate, record, said.append, wins=True)


def test_an_ensemble_is_refused_before_the_search_where_answers_have_no_mean(learnt, monkeypatch):
    problem, _, _ = learnt
    require_mean(asking(problem, ENSEMBLE))
    monkeypatch.setattr(type(problem.task), "averages", False)
    require_mean(asking(problem, AVERAGE))
    with pytest.raises(SpecError, match=r'`form` in \[winner\] can be "ensemble" only if answers can be averaged'):
        require_mean(asking(problem, ENSEMBLE))


@pytest.mark.exhaustive
def test_a_study_says_what_serves_and_another_form_takes_its_place(tiny_study):
    edit(
        tiny_study,
        (THREE, 'methods = ["lora"]'),
        ("trials = 4", "trials = 1"),
        ("epochs = 4", f"epochs = {LONG}"),
        add='[winner]\nform = "ensemble"\n',
    )
    result, output = run_study(tiny_study), tiny_study.parent / "outputs" / "tiny"
    assert result["test"]["form"] == ENSEMBLE
    readme = (output / "winner" / "README.md").read_text()
    assert "answers with the mean of 2 fold models" in readme
    rows = pd.read_csv(tiny_study.parent / "rows.csv")
    winner = autopeft.load(output / "winner")
    lines = autopeft_here("predict", output / "winner", "--input", "rows.csv", cwd=tiny_study.parent).stdout
    assert [line.split(",")[2] for line in lines.splitlines()[1:]] == winner.predict(rows)
    edit(tiny_study, ('form = "ensemble"', 'form = "average"'))
    again = run_study(tiny_study)
    assert again["records"] == result["records"]
    assert again["test"]["form"] in (AVERAGE, REFIT)
    assert not [*(output / "winner").glob("fold_*/*")]
    assert len(store(output)[1]) == 1
    assert json.loads((output / "result.json").read_text())["test"]["form"] == again["test"]["form"]
    assert run_study(tiny_study)["test"] == again["test"]
