"""Prefix-tuning: peft's own where peft has it, every other attention too; what a prefix costs, sees and saves."""

import copy

import pytest
import torch
from autopeft_prefix_tuning import PrefixTuning
from autopeft_prefix_tuning.prefix import ProjectedPrefix, attend, prefixes
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from autopeft.training.trunk_cache import lowest_trained
from tests.tiny_models import FAMILIES, PAD, SIZES, VOCABULARY, batch, tiny_base

PEFT = ("bert", "roberta", "electra", "gpt2", "opt", "llama", "qwen2")
ELSEWHERE = ("distilbert", "albert", "modernbert")
KEY_WIDTH = {**dict.fromkeys(PEFT + ELSEWHERE, 32), "llama": 16, "qwen2": 16}  # grouped in the last two: 2 heads of 8
DEFAULTS = {"num_virtual_tokens": 5, "prefix_projection": False, "layers": "all"}


def prefix(family, meta=False, **params):
    base = family if isinstance(family, BaseModel) else tiny_base(family)
    return attach(base, PrefixTuning(), {**DEFAULTS, **params}, meta=meta)


def added(model):
    """What the prefixes train, by name."""
    return {name: p for name, p in trainable(model).items() if ".prefix." in name}


def logits(model, rows=None):
    with torch.no_grad():
        return model.eval()(**(rows or batch())).logits


@pytest.fixture(scope="module")
def t5():
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": VOCABULARY}
    special = {"pad_token_id": PAD, "eos_token_id": 3, "decoder_start_token_id": PAD}
    config = AutoConfig.for_model("t5", num_labels=3, **sizes, **special)
    torch.manual_seed(0)
    module = AutoModelForSequenceClassification.from_config(config).requires_grad_(False).eval()
    return BaseModel(module, None, describe(module, "text-classification", "SEQ_CLS"))


@pytest.fixture(scope="module")
def vit():
    config = AutoConfig.for_model("vit", num_labels=3, image_size=8, patch_size=4, num_channels=1, **SIZES)
    torch.manual_seed(0)
    module = AutoModelForImageClassification.from_config(config).requires_grad_(False).eval()
    return BaseModel(module, None, describe(module, "image-classification", "SEQ_CLS"))


def ended(rows):
    """The same rows with the end token that T5 classifies by, alike in all."""
    ids = rows["input_ids"].clone()
    ids[ids == 3] = 4
    ids[torch.arange(len(ids)), rows["attention_mask"].sum(1) - 1] = 3
    return {**rows, "input_ids": ids}


@pytest.mark.parametrize("family", PEFT)
def test_it_is_pefts_own_to_the_logits_and_gradients(family):
    base, rows = tiny_base(family), batch()
    ours = prefix(family)
    config = PrefixTuningConfig(num_virtual_tokens=5, modules_to_save=list(base.spec.head), task_type="SEQ_CLS")
    theirs = get_peft_model(base.copy(), config)
    states = torch.stack([one.states for one in prefixes(ours).values()]).detach()  # [layers, 2, heads, tokens, width]
    table = theirs.prompt_encoder.default.embedding.weight
    table.data = states.permute(3, 0, 1, 2, 4).flatten(1).clone()
    assert (logits(theirs) - logits(base.module)).abs().max() > 1e-3
    torch.testing.assert_close(logits(ours), logits(theirs))
    ours(**rows).loss.backward()
    theirs(**rows).loss.backward()
    gradients = torch.stack([one.states.grad for one in prefixes(ours).values()])
    torch.testing.assert_close(gradients.permute(3, 0, 1, 2, 4).flatten(1), table.grad)


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("family", PEFT)
def test_peft_loads_what_is_saved_and_predicts_the_same(family, projection, tmp_path):
    base, method = tiny_base(family), PrefixTuning()
    model = prefix(family, prefix_projection=projection, encoder_hidden_size=7)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    assert method.export(model, {}, base.spec, "peft", tmp_path)
    loaded = PeftModel.from_pretrained(base.copy(), tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model))
    head = sum(p.numel() for name in base.spec.head for p in base.module.get_submodule(name).parameters())
    kept = sum(tensor.numel() for tensor in load_file(tmp_path / "adapter_model.safetensors").values())
    assert kept == 5 * 4 * 2 * KEY_WIDTH[family] + head


@pytest.mark.parametrize(("family", "layers"), [("bert", "top_half"), ("distilbert", "all")])
def test_nothing_is_written_that_peft_would_read_another_way(family, layers, tmp_path):
    model = prefix(family, layers=layers)
    for library in ("peft", "adapterhub"):
        answer = PrefixTuning().export(model, {}, tiny_base(family).spec, library, tmp_path)
        assert not answer
        assert answer.reason.endswith(".")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("family", ["llama", "modernbert"])
def test_only_the_keys_and_values_are_saved_and_a_fresh_model_takes_them(family, projection):
    method, changes = PrefixTuning(), {"prefix_projection": projection, "encoder_hidden_size": 7}
    model, fresh = prefix(family, **changes), prefix(family, **changes)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    kept = method.save(model)
    sizes = {name: tensor.shape for name, tensor in method.save(prefix(family, meta=True, **changes)).items()}
    assert {name: tensor.shape for name, tensor in kept.items()} == sizes
    assert sum(t.numel() for name, t in kept.items() if ".prefix." in name) == 5 * 4 * 2 * KEY_WIDTH[family]
    assert not torch.allclose(logits(fresh), logits(model))
    method.load(fresh, {name: tensor.clone() for name, tensor in kept.items()})
    torch.testing.assert_close(logits(fresh), logits(model))


@pytest.mark.parametrize("family", PEFT + ELSEWHERE)
def test_a_token_costs_a_key_and_a_value_in_every_layer(family):
    stored = len(tiny_base(family).spec.layers)  # ALBERT runs one stored layer four times
    assert sum(p.numel() for p in added(prefix(family, meta=True)).values()) == 5 * stored * 2 * KEY_WIDTH[family]


def test_a_projected_prefix_trains_a_network_of_the_given_width():
    model = prefix("bert", meta=True, prefix_projection=True, encoder_hidden_size=7)
    count = sum(p.numel() for p in added(model).values())
    assert count == 5 * 32 + (32 * 7 + 7) + (7 + 1) * 4 * 2 * 32


def test_a_projected_prefix_is_pefts_own_network_cut_by_layers():
    base = tiny_base("bert")
    ours = prefix("bert", prefix_projection=True, encoder_hidden_size=7)
    options = {"prefix_projection": True, "encoder_hidden_size": 7, "task_type": "SEQ_CLS"}
    theirs = get_peft_model(base.copy(), PrefixTuningConfig(num_virtual_tokens=5, **options))
    encoder = theirs.prompt_encoder.default
    layers = list(prefixes(ours).values())
    assert all(isinstance(layer, ProjectedPrefix) for layer in layers)
    encoder.embedding.weight.data = layers[0].network.embedding.data
    encoder.transform[0] = layers[0].network.hidden
    for name in ("weight", "bias"):
        parts = [getattr(layer.output, name).data for layer in layers]
        getattr(encoder.transform[2], name).data = torch.cat(parts)
    theirs.base_model.classifier = ours.classifier
    torch.testing.assert_close(logits(ours), logits(theirs))


def test_the_width_exists_only_with_the_projection():
    space = PrefixTuning().search_space()
    widths = {params["prefix_projection"]: "encoder_hidden_size" in params for params in space.corners()}
    assert widths == {False: False, True: True}


@pytest.mark.parametrize("family", PEFT + ELSEWHERE)
def test_every_layers_keys_and_values_are_attended_to_and_nothing_else_is_trained(family):
    model = prefix(family)
    model(**batch()).loss.backward()
    for name, parameter in added(model).items():
        assert (parameter.grad.norm(dim=(1, 3)) > 0).all(), name
    trained = {id(p) for p in trainable(model).values()}
    assert all(p.grad is None for p in model.parameters() if id(p) not in trained)


@pytest.mark.parametrize("family", PEFT + ELSEWHERE)
def test_padding_stays_hidden_behind_a_prefix(family):
    model, rows = prefix(family), batch()
    seen = rows["attention_mask"].bool()
    noise = torch.where(seen, rows["input_ids"], 7)
    if family not in ("gpt2", "opt", "llama", "qwen2"):  # which find each row's last token by its padding
        torch.testing.assert_close(logits(model, rows), logits(model, {**rows, "input_ids": noise}))
    one = {name: tensor[:1, : int(seen[0].sum())] if tensor.ndim > 1 else tensor[:1] for name, tensor in rows.items()}
    torch.testing.assert_close(logits(model, one)[0], logits(model, rows)[0])


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_tokens_still_do_not_see_what_comes_later(family):
    model, rows = prefix(family).eval(), batch()
    rows = {"input_ids": rows["input_ids"].clamp(min=4)}  # without a mask
    other = rows["input_ids"].clone()
    other[:, 6:] = 9
    with torch.no_grad():
        first, second = (model.base_model(ids).last_hidden_state for ids in (rows["input_ids"], other))
    torch.testing.assert_close(first[:, :6], second[:, :6])
    assert not torch.allclose(first[:, 6:], second[:, 6:])


def test_a_window_of_local_attention_leaves_the_prefix_in_sight():
    model, rows = prefix("modernbert").eval(), batch(rows=2, length=40)
    local = next(module for module in model.modules() if getattr(module, "sliding_window", None))
    outputs = []
    local.register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    logits(model, rows)
    local.prefix.states.data += 1.0
    logits(model, rows)
    before, after = outputs
    assert ((after - before).abs().amax(-1) > 1e-6).all(), "every token sees it"


@pytest.mark.parametrize("projection", [False, True])
def test_both_stacks_of_an_encoder_and_decoder_have_prefixes(t5, projection):
    rows, options = ended(batch()), {"prefix_projection": projection, "encoder_hidden_size": 7}
    assert PrefixTuning().supports(t5.spec)
    model = prefix(t5, **options)
    assert len(prefixes(model)) == 2 + 2 * 2  # each decoder layer attends to itself and to the encoder
    assert (logits(model, rows) - logits(t5.module, rows)).abs().max() > 1e-4
    model(**rows).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trainable(model).values())


def test_a_bias_of_relative_positions_leaves_the_prefix_at_zero(t5):
    model, rows, seen = copy.deepcopy(prefix(t5)), ended(batch()), {}
    attention = model.transformer.encoder.block[0].layer[0].SelfAttention
    for weight in (attention.q.weight, attention.k.weight, attention.prefix.states):
        weight.data[:] = 0  # scores are their bias alone, and the prefix's values add nothing
    attention.register_forward_hook(lambda module, args, output: seen.update(bias=output[1]))
    attention.v.register_forward_hook(lambda module, args, output: seen.update(values=output))
    attention.o.register_forward_pre_hook(lambda module, args: seen.update(attended=args[0]))
    logits(model, rows)
    shares = seen["bias"].exp() * rows["attention_mask"][:, None, None]
    weights = shares / (shares.sum(-1, keepdim=True) + 5)  # five more keys, each with exp(0)
    expected = weights @ seen["values"].unflatten(-1, (4, 8)).transpose(1, 2)
    torch.testing.assert_close(seen["attended"], expected.transpose(1, 2).flatten(2))


def test_images(vit):
    assert PrefixTuning().supports(vit.spec)
    images = torch.randn(3, 1, 8, 8)
    model = prefix(vit)
    assert (logits(model, {"pixel_values": images}) - logits(vit.module, {"pixel_values": images})).abs().max() > 1e-3
    model(pixel_values=images, labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trainable(model).values())


def test_modules_without_a_prefix_attend_as_before():
    model, plain = prefix("bert", layers="top_quarter"), tiny_base("bert").copy()
    assert len(prefixes(model)) == 1
    states = [
        one.base_model(**{k: v for k, v in batch().items() if k != "labels"}, output_hidden_states=True).hidden_states
        for one in (model.eval(), plain.eval())
    ]
    for ours, bare in zip(states[0][:4], states[1][:4], strict=True):
        assert torch.equal(ours, bare)
    assert not torch.allclose(states[0][4], states[1][4])
    assert plain.config._attn_implementation == tiny_base("bert").module.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["bert", "llama", "modernbert"])
def test_on_chosen_layers_training_starts_at_the_lowest(family):
    base = tiny_base(family)
    for projection in (False, True):
        model = prefix(family, layers="top_half", prefix_projection=projection, encoder_hidden_size=7)
        assert lowest_trained(model, base.spec) == 2


@pytest.mark.parametrize("family", PEFT)
def test_an_input_as_long_as_the_model_takes_fits_behind_a_prefix(family):
    most = 126 if family == "roberta" else 128  # its first two positions are for padding
    model, rows = prefix(family, num_virtual_tokens=64), batch(rows=2, length=most)
    rows["attention_mask"] = torch.ones_like(rows["attention_mask"])
    rows["input_ids"] = rows["input_ids"].clamp(min=4)
    assert torch.isfinite(logits(model, rows)).all()


def test_copies_are_independent():
    model = prefix("bert", prefix_projection=True, encoder_hidden_size=7)
    twin = copy.deepcopy(model)
    expected = logits(model)
    with torch.no_grad():
        for parameter in added(twin).values():
            parameter += 1.0
    assert torch.equal(logits(model), expected)
    assert not torch.allclose(logits(twin), expected)
    assert len({id(one.network) for one in prefixes(twin).values()}) == 1


def test_a_mask_that_is_added_hides_keys_and_not_the_prefix():
    place = nn.Module()
    place.prefix = prefixes(prefix("bert"))["bert.encoder.layer.0.attention.self.prefix"]
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    shown = torch.rand(2, 1, 6, 6) > 0.4
    added_to_scores = torch.zeros(shown.shape).masked_fill(~shown, float("-inf"))
    with torch.no_grad():
        torch.testing.assert_close(*(attend(place, query, key, value, mask)[0] for mask in (shown, added_to_scores)))
        blind = attend(place, query, key, value, torch.zeros_like(shown))[0]
    scores = query @ place.prefix.states[0].transpose(-1, -2) / 8**0.5
    torch.testing.assert_close(blind, (scores.softmax(-1) @ place.prefix.states[1]).transpose(1, 2).detach())


def test_who_is_not_supported_is_told_why():
    spec = tiny_base("deberta-v2").spec
    assert "attention interface" in PrefixTuning().supports(spec).reason
    assert all(PrefixTuning().supports(tiny_base(family).spec) for family in FAMILIES if family != "deberta-v2")
