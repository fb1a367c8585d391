"""LoRA's first values: training starts from the base model, as peft's own does, and what is kept is a plain LoRA."""

import copy
import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from autopeft_lora import Dora, Lora
from autopeft_lora.method import SUBTRACTED, TARGETS
from peft import LoraConfig, PeftModel, get_peft_model

from autopeft import original_weight
from autopeft.common.exceptions import ModelError, SpecError
from autopeft.methods.candidate import CandidateSpace
from autopeft.models import quantization
from autopeft.models.attach import attach, merged, trainable
from autopeft.models.base import BaseModel
from autopeft.models.load import load_base
from autopeft.models.weights_file import file_size, read_weights, saved_tensors, write_weights
from autopeft.tasks.registry import find_task
from tests.conftest import autopeft_here, few
from tests.tiny_language_models import language_model
from tests.tiny_models import batch, tiny_base

EVERY = ("gaussian", "orthogonal", "eva", *SUBTRACTED)
ROWS = {name: tensor for name, tensor in batch().items() if name != "labels"}


def started(family, how, kind=Lora, *, meta=False, seed=0, **changes):
    base = tiny_base(family)
    params = {**kind().search_space(base.spec).defaults(), "target_modules": "all_linear", "init_lora_weights": how}
    return attach(base, kind(), {**params, **changes}, meta=meta, seed=seed)


def logits(model):
    with torch.no_grad():
        return model.eval()(**ROWS).logits


def moved(model):
    """The model with other values than it started from."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("how", EVERY)
@pytest.mark.parametrize("kind", [Lora, Dora])
@pytest.mark.parametrize("family", few(["bert", "gpt2", "llama"], "gpt2"))
def test_it_starts_from_the_base_models_output_at_any_rank(family, kind, how):
    base = tiny_base(family).module
    for r, use_rslora in ((3, True), (64, False)):  # the second is over the rank of any weight there
        model = started(family, how, kind, r=r, use_rslora=use_rslora)
        torch.testing.assert_close(logits(model), logits(base), atol=1e-5, rtol=0)
        assert not torch.allclose(logits(moved(model)), logits(base), atol=1e-2)


@pytest.mark.parametrize(("family", "how"), [("bert", "pissa"), ("gpt2", "pissa"), ("bert", "olora")])
def test_it_trains_as_in_peft_which_changes_the_base_model_instead(family, how):
    base = tiny_base(family)
    before = {name: tensor.clone() for name, tensor in base.module.state_dict().items()}
    names = TARGETS.on(base.spec)["all_linear"]
    ours = started(family, how, r=4, lora_alpha=8)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=list(names),
        init_lora_weights=how,
        fan_in_fan_out=family == "gpt2",
        modules_to_save=list(base.spec.head),
        task_type=base.spec.peft_task_type,
    )
    torch.manual_seed(0)
    theirs = get_peft_model(copy.deepcopy(base.module), config)
    for model in (ours, theirs):
        model.eval()
        optimizer = torch.optim.SGD(trainable(model).values(), lr=0.1)
        for _ in range(5):
            model(**batch()).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert not torch.allclose(logits(ours), logits(base.module), atol=1e-2)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-4, rtol=1e-3)
    after = base.module.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_largest_singular_values_are_what_is_trained():
    base = tiny_base("bert")
    model = started("bert", "pissa", r=5, lora_alpha=10)
    name = base.spec.modules("query")[0]
    layer, weight = model.get_submodule(f"base_model.model.{name}"), base.module.get_submodule(name).weight
    a, b = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
    assert a.shape == (5, 32)
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(torch.linalg.svdvals(2 * b @ a)[:5], values[:5])
    torch.testing.assert_close(torch.linalg.svdvals(weight - 2 * b @ a)[: 32 - 5], values[5:])


def test_an_odd_rank_starts_orthogonal_but_for_one_pair():
    base = tiny_base("bert")
    name = f"base_model.model.{base.spec.modules('query')[0]}"
    layer = started("bert", "orthogonal", r=5).get_submodule(name)
    a, b = (part["default"].weight for part in (layer.lora_A, layer.lora_B))
    assert b[:, :4].abs().min() > 0
    assert (b[:, 4] == 0).all()
    assert a.norm(dim=1).min() > 0
    assert (b @ a).abs().max() < 1e-6


@pytest.mark.parametrize("how", ["pissa_niter_4", "orthogonal"])
def test_what_is_drawn_hangs_on_the_seed_alone(how):
    first, again, other = (trainable(started("bert", how, seed=seed)) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


@pytest.mark.parametrize(("kind", "family"), [(Lora, "bert"), (Lora, "gpt2"), (Dora, "llama")])
@pytest.mark.parametrize("how", SUBTRACTED)
def test_what_is_kept_is_a_plain_lora_of_twice_the_rank(family, kind, how, tmp_path):
    base, own = tiny_base(family), {"r": 3, "use_rslora": True}
    params = {**kind().search_space(base.spec).defaults(), "target_modules": "all_linear", "init_lora_weights": how}
    model = moved(started(family, how, kind, **own))
    expected = logits(model)
    write_weights(model, kind(), tmp_path)
    size = file_size(saved_tensors(started(family, how, kind, meta=True, **own), kind()))
    assert (Path(tmp_path) / "adapter_model.safetensors").stat().st_size == size
    loaded = PeftModel.from_pretrained(base.copy(), tmp_path)  # as anybody would
    assert loaded.peft_config["default"].r == 6
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)
    ours = read_weights(base, kind, {**params, **own}, tmp_path)
    torch.testing.assert_close(logits(ours), expected, atol=1e-5, rtol=1e-5)
    for one in (model, ours):
        torch.testing.assert_close(logits(merged(one, kind())), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(model), expected)  # merging took a copy apart


def test_a_quantized_weight_is_read_as_it_computes():
    bnb = pytest.importorskip("bitsandbytes", reason='needs pip install "autopeft[quantization]"')
    base = tiny_base("llama")
    module = copy.deepcopy(base.module)
    for linear in base.spec.linears:
        dense = module.get_submodule(linear.name)
        narrow = bnb.nn.Linear4bit(linear.in_features, linear.out_features, bias=False, quant_type="nf4")
        narrow.weight = bnb.nn.Params4bit(dense.weight.data, requires_grad=False, quant_type="nf4")
        module.set_submodule(linear.name, narrow.to("cpu"))
    quantized = BaseModel(module.requires_grad_(False), None, base.spec)
    before = logits(module)
    assert not torch.allclose(before, logits(base.module), atol=1e-3)
    for how in ("pissa", "olora"):
        params = {**Lora().search_space(base.spec).defaults(), "init_lora_weights": how}
        model = attach(quantized, Lora(), params)
        torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=0)
        assert not torch.allclose(logits(moved(model)), before, atol=1e-2)


def test_loftq_is_refused_in_a_sentence_where_nothing_was_quantized(tiny_study):
    text = tiny_study.read_text().replace("[validation]", 'lora.init_lora_weights = ["eva", "loftq"]\n[validation]')
    tiny_study.write_text(text)
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 2
    told = " ".join(done.stderr.split())
    assert "[search] lora.init_lora_weights cannot be 'loftq' here: it makes up for what 4 bits lose" in told
    assert 'set `quantization = "4bit"` in [model], or leave it out.' in told
    base = tiny_base("bert")
    with pytest.raises(SpecError, match="must be one of default"):
        CandidateSpace.build([Lora()], base.spec, {"lora": {"init_lora_weights": "loftQ"}}, ())
    four = replace(base.spec, quantization="4bit")
    assert CandidateSpace.build([Lora()], four, {"lora": {"init_lora_weights": "loftq"}}, ())
    with pytest.raises(ModelError, match="only for quantized linear maps"):
        started("bert", "loftq")


def in_4_bits(folder, kind):
    pytest.importorskip("bitsandbytes", reason='needs pip install "autopeft[quantization]"')
    if torch.cuda.is_available() or platform.machine().lower() not in quantization.X86:
        pytest.skip("4 bits on a CPU are for x86 processors, and only where there is no GPU")
    labels = () if kind == "causal-lm" else ("a", "b", "c")
    task = find_task(kind)
    task = task.configured({}) if task.options is None else task
    return [
        load_base(folder, task, seed=0, config_overrides=task.config(labels), quantized=how) for how in ("4bit", "none")
    ]


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def both(request, tiny_model, tmp_path_factory):
    """A model in 4 bits, and as it was."""
    if request.param == "bert":
        return in_4_bits(tiny_model, "text-classification")
    folder = tmp_path_factory.mktemp("gpt2")  # whose weights are turned
    language_model(folder, "gpt2")
    return in_4_bits(folder, "causal-lm")


def loftq(base, kind=Lora, **changes):
    own = {"target_modules": "all_linear", "init_lora_weights": "loftq", **changes}
    return attach(base, kind(), {**kind().search_space(base.spec).defaults(), **own})


def test_the_weights_before_quantization_are_those_of_the_files(both):
    packed, whole = both
    assert packed.spec.quantization == "4bit"
    assert whole.spec.quantization == "none"
    for linear in packed.spec.linears:
        weight = whole.module.get_submodule(linear.name).weight
        found = original_weight(packed.copy().get_submodule(linear.name))
        assert found.shape == (linear.out_features, linear.in_features)
        torch.testing.assert_close(found, weight.T if "gpt2" in packed.spec.model_type else weight)
        with pytest.raises(ModelError, match="only for quantized linear maps"):
            original_weight(whole.module.get_submodule(linear.name))


@pytest.mark.parametrize("kind", [Lora, Dora])
def test_loftq_makes_up_for_what_quantization_took(both, kind):
    packed, whole = both
    before = [packed.module.get_submodule(linear.name).weight.clone() for linear in packed.spec.linears]

    def error(model):
        return float((logits(model) - logits(whole.module)).norm())

    lost = error(packed.module)
    some, all_of_it = (error(loftq(packed, kind, r=r, use_rslora=r > 8)) for r in (8, 64))
    assert some < 0.9 * lost
    assert all_of_it < 1e-2 * lost
    after = [packed.module.get_submodule(linear.name).weight for linear in packed.spec.linears]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    model = loftq(packed, kind, r=3)
    assert not torch.allclose(logits(moved(model)), logits(loftq(packed, kind, r=3)), atol=1e-2)


def test_loftq_is_what_peft_makes_of_what_was_lost(both):
    from peft.utils.loftq_utils import _low_rank_decomposition  # peft's own function around it needs a GPU

    packed, _ = both
    model = loftq(packed, r=4, lora_alpha=4)  # at another scale peft's product is another than what was lost
    for linear in packed.spec.linears:
        pair = model.get_submodule(f"base_model.model.{linear.name}")
        base = packed.module.get_submodule(linear.name)
        theirs = _low_rank_decomposition(original_weight(base) - quantization.expanded(base), 4)
        ours = pair.lora_B["default"].weight @ pair.lora_A["default"].weight
        torch.testing.assert_close(ours, theirs["L"] @ theirs["R"], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("kind", [Lora, Dora])
def test_what_is_kept_of_loftq_is_a_plain_lora_on_the_quantized_model(both, kind, tmp_path):
    packed, _ = both
    own = {"target_modules": "all_linear", "init_lora_weights": "loftq", "r": 3}
    model = moved(loftq(packed, kind, r=3))
    expected = logits(model)
    write_weights(model, kind(), tmp_path)
    params = {**kind().search_space(packed.spec).defaults(), **own}
    size = file_size(saved_tensors(attach(packed, kind(), params, meta=True), kind()))
    assert (tmp_path / "adapter_model.safetensors").stat().st_size == size
    loaded = PeftModel.from_pretrained(packed.copy(), tmp_path)
    assert loaded.peft_config["default"].r == 3
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(read_weights(packed, kind, params, tmp_path)), expected, atol=1e-5, rtol=1e-5)
