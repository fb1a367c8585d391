"""What the shipped methods hold beside the contract (`test_conformance.py`): where they refuse, start and are kept."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from autopeft_adapter import Adapter
from autopeft_lora import Lora
from autopeft_prefix_tuning import PrefixTuning
from peft import PeftModel

from autopeft.model import attach, trainable
from tests.tiny_models import FAMILIES, batch, tiny_base

METHODS = {method.name: method for method in (Adapter(), Lora(), PrefixTuning())}
NO_PREFIX = {"distilbert", "deberta-v2", "albert", "modernbert", "t5"}
PAIRS = [(m, f) for m in METHODS for f in FAMILIES if m != "prefix_tuning" or f not in NO_PREFIX]


def default(name, family, **changes):
    """The method at its defaults on a tiny model of that family."""
    base, method = tiny_base(family), METHODS[name]
    meta = changes.pop("meta", False)
    params = {**method.search_space(base.spec).defaults(), **changes}
    return attach(base, method, params, meta=meta)


def logits(model, rows):
    with torch.no_grad():
        return model.eval()(**rows).logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_supports_what_it_promises_and_says_why_not(name, family):
    support = METHODS[name].supports(tiny_base(family).spec)
    assert bool(support) == ((name, family) in PAIRS)
    if not support:
        assert "several stacks" in support.reason if family == "t5" else "past_key_values" in support.reason
        assert tiny_base(family).spec.architecture in support.reason


def test_refuses_models_it_finds_no_place_in():
    spec = tiny_base("bert").spec
    empty = dataclasses.replace(spec, linears=())
    assert "feed-forward" in Adapter().supports(empty).reason
    assert "linear map" in Lora().supports(empty).reason
    two_stacks = dataclasses.replace(spec, layers=("encoder.block.0", "decoder.block.0"))
    assert "several stacks" in PrefixTuning().supports(two_stacks).reason


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_starts_from_the_base_models_output(name, family):
    rows = batch()
    change = (logits(default(name, family), rows) - logits(tiny_base(family).module, rows)).abs().max()
    if name == "prefix_tuning":  # a random prefix is seen by every layer at once
        assert change > 1e-3
    else:
        assert change == 0


@pytest.mark.parametrize(
    ("name", "family", "changes"),
    [
        ("lora", "roberta", {"target_modules": "all_linear", "use_rslora": True}),
        ("lora", "gpt2", {"target_modules": "all_linear"}),
        ("prefix_tuning", "bert", {"prefix_projection": True, "encoder_hidden_size": 8}),
    ],
)
def test_peft_saves_and_loads_it_with_its_head(name, family, changes, tmp_path):
    model, rows = default(name, family, **changes), batch()
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_base(family).copy(), tmp_path)
    torch.testing.assert_close(logits(loaded, rows), logits(model, rows))


def test_the_packages_import_and_show_their_spaces_without_heavy_libraries():
    code = """
import sys, autopeft_adapter, autopeft_lora, autopeft_prefix_tuning
for plugin in (autopeft_adapter, autopeft_lora, autopeft_prefix_tuning):
    for method in plugin.register_methods():
        print(method.name, len(method.search_space()), *method.training_space())
heavy = {"torch", "transformers", "peft", "optuna", "mlflow", "pandas", "datasets"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:3] == [
        "adapter 4 learning_rate",
        "lora 5 learning_rate",
        "prefix_tuning 3 learning_rate",
    ]
