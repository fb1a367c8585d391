"""A saved winner can become a plain transformers model, where its method can be merged."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from autopeft import artifact
from autopeft.card import Card
from autopeft.exceptions import DataError, MethodError, UserInputError
from tests.conftest import autopeft_here, trained_winner


def test_a_merged_winner_is_the_plain_model_and_predicts_alike(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    loaded = trained_winner(tiny_study, "lora")
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
        trained_winner(tiny_study, "adapter").merge()


def test_a_winner_on_a_quantized_base_is_not_merged(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    loaded = trained_winner(tiny_study, "lora")
    loaded.card = replace(loaded.card, quantization="4bit")
    with pytest.raises(MethodError, match="this one's is in 4bit"):
        loaded.merge()


def test_a_winner_from_elsewhere_runs_no_code_unasked(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    trained_winner(tiny_study, "lora")
    folder = tiny_study.parent / "lora"
    replace(Card.read(folder), trust_remote_code=True).write(folder)
    with pytest.raises(UserInputError, match=r"not run unasked.*--trust-remote-code"):
        artifact.load(folder)
    done = autopeft_here("predict", folder, "--input", tiny_study.parent / "rows.csv", cwd=tiny_study.parent)
    assert done.returncode == 2
    assert "not run unasked" in done.stderr
    assert artifact.load(folder, trust_remote_code=True).predict(["w1"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("w1 w2", "put a single one into a list"),
        ({"text": ["w1"]}, "put a single one into a list"),
        (pd.DataFrame({"text": ["w1", None]}, index=[7, 8]), 'row 8 has none in "text"'),
        (pd.DataFrame({"words": ["w1"]}), "got no column 'text'"),
        ([], "got no row"),
    ],
)
def test_what_is_no_rows_is_told(tiny_study, monkeypatch, rows, words):
    monkeypatch.chdir(tiny_study.parent)
    with pytest.raises(DataError, match=words):
        trained_winner(tiny_study, "lora").predict(rows)


def test_a_number_is_the_text_that_it_was_in_training(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    winner = trained_winner(tiny_study, "lora")
    found = winner.predict_proba(pd.DataFrame({"text": [3.0, 2.5]}))
    np.testing.assert_array_equal(found, winner.predict_proba(["3", "2.5"]))
    assert not np.array_equal(found, winner.predict_proba(["3.0", "2.5"]))
