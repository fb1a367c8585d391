"""A saved winner can become a plain transformers model, where its method can be merged."""

import numpy as np
import pytest
import torch

from autopeft import artifact
from autopeft.exceptions import MethodError
from autopeft.locate import portable
from autopeft.model import attach, trainable
from autopeft.problem import Problem
from autopeft.registry import discover
from autopeft.spec import StudySpec


def winner(study, name):
    problem = Problem.from_spec(StudySpec.from_file(study), discover())
    candidate = problem.space[name].default()
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    card = artifact.Card(
        base_model=portable(problem.spec.model.name_or_path, problem.spec.folder),
        task=problem.task.kind,
        labels=problem.rows.labels,
        max_length=problem.max_length,
        method=name,
        params=dict(candidate.params),
        plugin="",
        seed=problem.spec.seed,
    )
    artifact.save(model, candidate.method, problem.base.tokenizer, card, study.parent / name)
    return artifact.load(study.parent / name)


def test_a_merged_winner_is_the_plain_model_and_predicts_alike(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    loaded = winner(tiny_study, "lora")
    texts = ["w12 w3 w20", "w40 w11"]
    expected = loaded.predict_proba(texts)
    plain = loaded.merge()
    assert type(plain).__module__.startswith("transformers.")
    assert not [name for name in plain.state_dict() if "lora" in name]
    inputs = loaded.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = plain.eval()(**inputs).logits.softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(loaded.predict_proba(texts), expected)


def test_a_winner_that_cannot_be_merged_says_so(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    with pytest.raises(MethodError, match='"adapter" cannot; predict with the winner itself'):
        winner(tiny_study, "adapter").merge()
