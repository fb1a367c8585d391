"""What the shipped methods hold beside the contract (`test_conformance.py`): where they refuse, start and are kept."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from autopeft_adalora import AdaLora
from autopeft_adapter import Adapter
from autopeft_bitfit import BitFit
from autopeft_fusion import Fusion, Stacked
from autopeft_ia3 import Ia3
from autopeft_lora import Dora, Lora, Merged
from autopeft_mixed import Mixed
from autopeft_prefix_tuning import PrefixTuning
from autopeft_prompt_tuning import PromptTuning
from autopeft_vera import Vera
from peft import PeftModel

from autopeft.models.attach import attach, merged, trainable
from tests.tiny_models import FAMILIES, batch, tiny_base

ALL = (
    AdaLora(), Adapter(), BitFit(), Dora(), Fusion().example(), Ia3(), Lora(), Merged().example(), Mixed(),
    PrefixTuning(), PromptTuning(), Stacked().example(), Vera(),
)  # fmt: skip
METHODS = {method.name: method for method in ALL}
REFUSED = {
    "prefix_tuning": {"deberta-v2": "attention interface"},
    "bitfit": dict.fromkeys(("llama", "modernbert", "t5"), "no biases"),
}
"""The families on which a method does not work, each with words of the reason."""

PAIRS = [(m, f) for m in METHODS for f in FAMILIES if f not in REFUSED.get(m, {})]


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
        assert REFUSED[name][family] in support.reason
        assert tiny_base(family).spec.architecture in support.reason


def test_refuses_models_it_finds_no_place_in():
    spec = tiny_base("bert").spec
    empty = dataclasses.replace(spec, linears=())
    assert "takes none" in Mixed().supports(empty).reason
    assert "equal width" in PrefixTuning().supports(empty).reason
    for name, words in {"adapter": "feed-forward", "ia3": "feed-forward", "bitfit": "biases"}.items():
        assert words in METHODS[name].supports(empty).reason
    for name in ("adalora", "lora", "dora", "vera"):
        assert "linear layer" in METHODS[name].supports(empty).reason
    tagging = dataclasses.replace(spec, task="token-classification", peft_task_type="TOKEN_CLS")
    assert "token-classification" in PromptTuning().supports(tagging).reason


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_starts_from_the_base_models_output(name, family):
    rows = batch()
    change = (logits(default(name, family), rows) - logits(tiny_base(family).module, rows)).abs().max()
    random = ("fusion", "merged", "prefix_tuning", "prompt_tuning", "stacked", *["mixed"] * (family != "deberta-v2"))
    if name in random:  # what starts at random, or from earlier winners, is seen at once
        assert change > 1e-3
    else:
        assert change <= (1e-4 if name == "dora" else 0)  # which divides by a length and multiplies by it


@pytest.mark.parametrize(
    ("name", "family", "changes"),
    [
        ("lora", "roberta", {"target_modules": "all_linear", "use_rslora": True}),
        ("lora", "gpt2", {"target_modules": "all_linear"}),
        ("adalora", "gpt2", {}),
        ("dora", "gpt2", {"target_modules": "all_linear"}),
        ("ia3", "gpt2", {}),
        ("ia3", "qwen2", {"target_modules": "feed_forward"}),
        ("vera", "roberta", {"r": 16, "target_modules": "all_linear"}),
    ],
)
def test_peft_saves_and_loads_it_with_its_head(name, family, changes, tmp_path):
    model, rows = default(name, family, **changes), batch()
    del rows["labels"]  # a loss is of training, and peft's AdaLoRA has none of a loaded model
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_base(family).copy(), tmp_path)
    torch.testing.assert_close(logits(loaded, rows), logits(model, rows))


@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen2"])
@pytest.mark.parametrize("name", ["adalora", "bitfit", "dora", "ia3", "lora", "merged", "vera"])
def test_merged_it_is_a_plain_model_that_answers_the_same(name, family):
    model, rows, base = default(name, family), batch(), tiny_base(family)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    plain = merged(model, METHODS[name])
    assert type(plain) is type(base.module)
    assert plain.state_dict().keys() == base.module.state_dict().keys()
    torch.testing.assert_close(logits(plain, rows), logits(model, rows), atol=1e-4, rtol=1e-4)


def test_the_packages_import_and_show_their_spaces_without_heavy_libraries():
    packages = [type(method).__module__.partition(".")[0] for method in METHODS.values()]
    code = f"""
import importlib, sys
for package in sorted({set(packages)}):
    for method in importlib.import_module(package).register_methods():
        print(method.name, len(method.search_space()), *method.training_space())
heavy = {{"torch", "transformers", "peft", "optuna", "mlflow", "pandas", "datasets"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [
        "adalora 8 learning_rate",
        "adapter 4 learning_rate",
        "bitfit 1 learning_rate",
        "dora 7 learning_rate",
        "fusion 4 learning_rate",
        "ia3 1 learning_rate weight_decay",
        "lora 7 learning_rate",
        "merged 5 learning_rate",
        "mixed 5 learning_rate",
        "prefix_tuning 4 learning_rate",
        "prompt_tuning 2 learning_rate",
        "stacked 5 learning_rate",
        "vera 4 learning_rate",
    ]
