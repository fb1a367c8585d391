"""A saved winner can become a plain transformers model, where its method can be merged."""

import numpy as np
import pytest
import torch

from autopeft.exceptions import MethodError
from tests.conftest import trained_winner


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
