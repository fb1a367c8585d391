"""A winner of QLoRA and its exports, on a CPU: bitsandbytes is needed, and a GPU is not."""

import platform
import re

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

import autopeft
from autopeft.common.exceptions import MethodError
from autopeft.models import quantization
from autopeft.models.load import load_base
from autopeft.winner.base_model import find_base
from autopeft.winner.dequantized import dequantized, difference
from autopeft.winner.export import ExportError
from tests.conftest import trained_winner, write_tiny_study
from tests.winner.test_export import TEXTS, from_readme, probabilities

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() or platform.machine().lower() not in quantization.X86,
    reason="few bits on a CPU are for x86 processors, and only where there is no GPU",
)

APART = {"4bit": 1e-4, "8bit": 1e-2}
"""How far probabilities may be apart on expanded weights: in 8 bits what enters a product is rounded as well."""


@pytest.fixture(scope="module", params=[("4bit", "default"), ("4bit", "loftq"), ("8bit", "default")], ids="-".join)
def winner(request, tiny_model, tmp_path_factory):
    """Of the tiny model in few bits."""
    quantized, start = request.param
    study = write_tiny_study(tmp_path_factory.mktemp("qlora"), tiny_model)
    study.write_text(study.read_text().replace('"model"\n', f'"model"\nquantization = "{quantized}"\n'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study.parent)  # where the winner's base model is looked for
        yield trained_winner(study, "lora", target_modules="all_linear", init_lora_weights=start)


def test_it_predicts_with_its_weights_in_few_bits(winner):
    packed = [module for module in winner.module.modules() if quantization.is_quantized(module)]
    assert {type(module).__name__ for module in packed} <= {"Linear4bit", "Linear8bitLt"}
    assert packed
    assert np.allclose(winner.predict_proba(TEXTS).sum(1), 1, atol=1e-5)


def test_its_adapter_is_loaded_by_peft_as_its_readme_says(winner, tiny_model, tmp_path):
    folder = autopeft.export(winner, tmp_path / "adapter", "peft")
    found = from_readme(folder, tiny_model)
    assert any(quantization.is_quantized(module) for module in found["model"].modules())
    np.testing.assert_allclose(probabilities(found, TEXTS), winner.predict_proba(TEXTS), atol=1e-4)


def test_merged_it_is_the_same_on_expanded_weights_and_the_difference_is_told(winner, tiny_model, tmp_path):
    told = []
    folder = autopeft.export(winner, tmp_path / "merged", "merged", say=told.append)
    found = from_readme(folder, tiny_model)
    assert not any(quantization.is_quantized(module) for module in found["model"].modules())
    assert not hasattr(found["model"].config, "quantization_config")
    atol = APART[winner.card.quantization]
    np.testing.assert_allclose(probabilities(found, TEXTS), winner.predict_proba(TEXTS), atol=atol)
    (sentence,) = told
    apart, largest = map(float, re.findall(r"by up to (\S+); the largest output is (\S+)\.$", sentence)[0])
    assert apart < atol * largest


@pytest.mark.parametrize("winner", ["4bit"], indirect=True)  # in 8 bits weights lose less than what enters a product
def test_on_the_original_weights_it_would_predict_something_else(winner):
    whole = dequantized(winner)
    apart, _ = difference(winner, whole)
    original = load_base(
        find_base(winner.card), winner._task, seed=winner.card.seed,
        config_overrides=winner._task.config(winner.card.labels),
    )  # fmt: skip
    for linear in original.spec.linears:
        owner = whole.module.base_model.model.get_submodule(linear.name)
        weight = original.module.get_submodule(linear.name).weight
        assert not torch.equal(owner.base_layer.weight, weight)
        owner.base_layer.weight.data = weight.data
    assert difference(winner, whole)[0] > 10 * apart


@pytest.mark.parametrize("transposed", [False, True], ids=["Linear", "Conv1D"])
def test_a_weight_is_expanded_as_products_have_it(transposed):
    from bitsandbytes.nn import Linear4bit

    torch.manual_seed(0)
    packed = Linear4bit(48, 32, quant_type="nf4", compute_dtype=torch.float32)
    packed.weight.data = torch.randn(32, 48)
    packed.to("cpu")
    plain = Conv1D(32, 48) if transposed else torch.nn.Linear(48, 32)
    weight = quantization.expanded(packed)
    plain.weight.data, plain.bias.data = weight.T if transposed else weight, packed.bias.data
    x = torch.randn(5, 48)
    torch.testing.assert_close(plain(x), packed(x))


def test_servers_which_have_other_weights_are_refused(winner, tmp_path):
    with pytest.raises(ExportError, match="can be exported as peft, merged, mlflow alone"):
        autopeft.export(winner, tmp_path / "serving", "serving")


def test_a_method_that_cannot_be_merged_says_so(winner, monkeypatch):
    monkeypatch.setattr("autopeft.winner.winner.merged", lambda module, method: None)
    with pytest.raises(MethodError, match="cannot; predict with the winner itself"):
        winner.merge()
