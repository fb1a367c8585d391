"""BitFit: which biases are trained, how many numbers they are, and that the base keeps its own."""

import pytest
from autopeft_bitfit import BitFit
from autopeft_bitfit.method import ROLES
from torch import nn

from autopeft.models.attach import attach, trainable
from tests.tiny_models import tiny_base


def biases(family, choice):
    base = tiny_base(family)
    model = attach(base, BitFit(), {"biases": choice}, meta=True)
    return {
        name: parameter.numel()
        for name, parameter in trainable(model).items()
        if not any(f".{head}." in f".{name}" for head in base.spec.head)
    }


def test_all_biases_are_those_of_every_map_and_norm_and_nothing_else():
    found = biases("bert", "all")
    expected = {
        f"{name}.bias"
        for name, module in tiny_base("bert").module.bert.named_modules(prefix="bert")
        if isinstance(module, nn.Linear | nn.LayerNorm)
    }
    assert set(found) == expected
    # The embeddings' norm; four layers of query, key, value, output, up (64), down and two norms; the pooler.
    assert sum(found.values()) == 32 + 4 * (7 * 32 + 64) + 32


@pytest.mark.parametrize("family", ["bert", "gpt2", "opt", "distilbert"])
@pytest.mark.parametrize("choice", ROLES)
def test_a_choice_trains_the_biases_of_its_roles(family, choice):
    linears = tiny_base(family).spec.linears
    assert biases(family, choice) == {
        f"{linear.name}.bias": linear.out_features for linear in linears if linear.role in ROLES[choice]
    }


def test_the_papers_two_are_the_query_and_the_map_into_the_feed_forward_part():
    found = biases("bert", "query_feed_forward")
    assert sum(found.values()) == 4 * (32 + 64)
    assert all(name.endswith(("attention.self.query.bias", "intermediate.dense.bias")) for name in found)


def test_only_what_a_model_has_is_offered():
    spec = tiny_base("qwen2").spec  # biases of query, key and value alone
    assert BitFit().search_space(spec)["biases"].choices == ("all", "query_feed_forward", "attention")
    assert {name.split(".")[-2] for name in biases("qwen2", "query_feed_forward")} == {"q_proj"}
