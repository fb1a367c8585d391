"""LoRA: which modules a target group names, and how many parameters a rank costs."""

import dataclasses

import pytest
from autopeft_lora import Lora
from autopeft_lora.method import targets

from autopeft.model import attach, trainable
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
    assert leaves(targets(tiny_base(family).spec)[group]) == expected


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
    wanted = [linear for linear in base.spec.linears if linear.name in targets(base.spec)[group]]
    assert add_on == sum(r * (linear.in_features + linear.out_features) for linear in wanted) > 0


def test_rank_stabilised_scale():
    base = tiny_base("bert")
    for use_rslora, scale in ((False, 16 / 4), (True, 16 / 4**0.5)):
        params = {**Lora().search_space(base.spec).defaults(), "r": 4, "use_rslora": use_rslora}
        model = attach(base, Lora(), params, meta=True)
        layer = model.get_submodule("base_model.model." + base.spec.modules("query")[0])
        assert layer.scaling["default"] == scale
