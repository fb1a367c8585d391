"""LoRA: which modules a target group names, and how many parameters a rank costs."""

import dataclasses

import pytest
import torch
from autopeft_lora import Dora, Lora
from autopeft_lora.method import TARGETS

from autopeft.models.attach import attach, trainable
from tests.tiny_models import tiny_base


def leaves(names):
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize(
    ("family", "group", "expected"),
    [
        ("bert", "query_value", {"query", "value"}),
        ("bert", "feed_forward", {"dense"}),
        ("gpt2", "query_value", {"c_attn"}),
        ("gpt2", "attention", {"c_attn", "c_proj"}),
        ("modernbert", "all_linear", {"Wqkv", "Wi", "Wo"}),
        ("llama", "attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("llama", "feed_forward", {"gate_proj", "up_proj", "down_proj"}),
        ("distilbert", "query_value", {"q_lin", "v_lin"}),
        # DeBERTa's projections of relative positions are not the value or the query.
        ("deberta-v2", "attention", {"query_proj", "key_proj", "value_proj", "dense"}),
    ],
)
def test_target_groups_are_derived_from_the_model(family, group, expected):
    assert leaves(TARGETS.on(tiny_base(family).spec)[group]) == expected


def test_groups_that_coincide_are_offered_once():
    spec = tiny_base("gpt2").spec
    fused = dataclasses.replace(spec, linears=tuple(x for x in spec.linears if x.role == "qkv"))
    assert Lora().search_space(fused)["target_modules"].choices == ("query_value",)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "albert", "deberta-v2"])
@pytest.mark.parametrize("group", ["query_value", "attention", "feed_forward", "all_linear"])
def test_a_target_costs_rank_times_both_its_sides_and_nothing_else_trains(family, group):
    base, r = tiny_base(family), 3
    params = {**Lora().search_space(base.spec).defaults(), "r": r, "target_modules": group}
    model = attach(base, Lora(), params, meta=True)
    add_on = sum(parameter.numel() for name, parameter in trainable(model).items() if ".lora_" in name)
    wanted = [linear for linear in base.spec.linears if linear.name in TARGETS.on(base.spec)[group]]
    assert add_on == sum(r * (linear.in_features + linear.out_features) for linear in wanted) > 0


def test_rank_stabilised_scale():
    base = tiny_base("bert")
    for use_rslora, scale in ((False, 16 / 4), (True, 16 / 4**0.5)):
        params = {**Lora().search_space(base.spec).defaults(), "r": 4, "use_rslora": use_rslora}
        model = attach(base, Lora(), params, meta=True)
        layer = model.get_submodule("base_model.model." + base.spec.modules("query")[0])
        assert layer.scaling["default"] == scale


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_dora_trains_a_length_for_each_output_beside_loras_maps(family):
    base = tiny_base(family)
    params = {**Dora().search_space(base.spec).defaults(), "r": 3, "target_modules": "all_linear"}
    counts = [
        sum(p.numel() for p in trainable(attach(base, kind(), params, meta=True)).values()) for kind in (Dora, Lora)
    ]
    assert counts[0] - counts[1] == sum(linear.out_features for linear in base.spec.linears)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_dora_is_the_papers_equation(family):
    base = tiny_base(family)
    params = {**Dora().search_space(base.spec).defaults(), "r": 3, "lora_alpha": 6}
    model = attach(base, Dora(), params)
    name = TARGETS.on(base.spec)["query_value"][0]
    layer, plain = model.get_submodule("base_model.model." + name), base.module.get_submodule(name)
    length = layer.lora_magnitude_vector["default"].weight
    weight = plain.weight.T if family == "gpt2" else plain.weight
    torch.testing.assert_close(length, weight.norm(dim=1))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    b.data, length.data = torch.randn_like(b), torch.rand_like(length)
    direction = weight + 2 * b @ a
    turned = length[:, None] * direction / direction.norm(dim=1, keepdim=True)  # Liu et al., equation 5
    x = torch.randn(4, 32)
    torch.testing.assert_close(layer(x), x @ turned.T + plain.bias, atol=1e-5, rtol=1e-4)
