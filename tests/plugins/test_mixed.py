"""Mixtures: each part is what the method it comes from makes of it, alone and together, and packs like it."""

import dataclasses

import pytest
import torch
from autopeft_adapter import Adapter
from autopeft_mixed import Mixed
from autopeft_prefix_tuning import PrefixTuning

from autopeft.models.attach import attach, trainable
from autopeft.training.packing_check import packable
from autopeft.training.trunk_cache import lowest_trained
from tests.plugins.test_prefix_tuning import logits
from tests.tiny_models import FAMILIES, batch, tiny_base
from tests.training.test_packing import TOGETHER, gradients

ALL = "prefix+parallel+sequential"
SIZES = {
    "num_virtual_tokens": 5,
    "parallel_factor": 4,
    "sequential_factor": 8,
    "layers": "all",
}
ADAPTER = {"non_linearity": "relu", "layers": "all"}
PLAIN = {
    "prefix": (PrefixTuning(), {"num_virtual_tokens": 5, "prefix_projection": False, "layers": "all"}),
    "parallel": (Adapter(), {**ADAPTER, "placement": "parallel", "reduction_factor": 4}),
    "sequential": (Adapter(), {**ADAPTER, "placement": "pfeiffer", "reduction_factor": 8}),
}


def mixed(family, parts, meta=False, **changes):
    return attach(tiny_base(family), Mixed(), {**SIZES, "parts": parts, **changes}, meta=meta)


def moved(model):
    """The same model a little way into training."""
    with torch.no_grad():
        for name, parameter in sorted(trainable(model).items()):
            generator = torch.Generator().manual_seed(len(name))
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def cost(model, family="bert"):
    """Parameters of the add-on alone."""
    head = tuple(tiny_base(family).spec.head)
    return sum(parameter.numel() for name, parameter in trainable(model).items() if not name.startswith(head))


@pytest.mark.parametrize("part", PLAIN)
def test_one_part_alone_is_the_plain_method(part):
    method, params = PLAIN[part]
    plain, alone = moved(attach(tiny_base("bert"), method, params)), moved(mixed("bert", part))
    assert trainable(plain).keys() == trainable(alone).keys()
    assert torch.equal(logits(alone), logits(plain))


@pytest.mark.parametrize("family", ["bert", "llama", "modernbert"])
def test_a_mixture_costs_what_its_parts_cost(family):
    alone = [cost(mixed(family, part, meta=True), family) for part in ("prefix", "parallel", "sequential")]
    assert cost(mixed(family, ALL, meta=True), family) == sum(alone)
    assert cost(mixed(family, "prefix+parallel", meta=True), family) == sum(alone[:2])


def test_what_the_default_costs_and_where_it_goes():
    space = Mixed().search_space(tiny_base("bert").spec)
    assert space.defaults()["parts"] == "prefix+parallel"
    model = attach(tiny_base("bert"), Mixed(), space.defaults(), meta=True)
    assert cost(model) == 4 * (2 * 8 * 32 + (2 * 32 * 4 + 4 + 32))


def test_the_sequential_adapter_takes_the_sublayers_output_and_the_parallel_one_its_input():
    model, rows, seen = moved(mixed("bert", ALL)), batch(), {}
    layer = model.bert.encoder.layer[1]
    joined = layer.output.dense
    layer.intermediate.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    joined.register_forward_hook(lambda module, args, output: seen.update(inner=args[0], output=output))
    logits(model, rows)
    with torch.no_grad():
        h = joined.base.base(seen["inner"])
        expected = h + joined.base.adapter(h) + joined.adapter(seen["x"])
    torch.testing.assert_close(seen["output"], expected)


def test_no_candidate_is_without_a_part_and_sizes_come_with_their_parts():
    for spec in (None, tiny_base("bert").spec, tiny_base("deberta-v2").spec):
        space = Mixed().search_space(spec)
        for params in space.corners():
            parts = params["parts"].split("+")
            assert parts != [""]
            expected = {"parts", "layers", *(f"{part}_factor" for part in parts if part != "prefix")}
            expected |= {"num_virtual_tokens"} if "prefix" in parts else set()
            assert params.keys() == expected


def test_a_study_can_leave_a_part_out():
    space = Mixed().search_space().narrowed({"parts": ["prefix+parallel", "prefix"]}, "[search] mixed")
    assert set(space) == {"parts", "num_virtual_tokens", "parallel_factor", "layers"}
    assert space["parallel_factor"].when == ("parts", "prefix+parallel")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_mixture_a_model_takes_learns_on_it(family):
    base = tiny_base(family)
    assert Mixed().supports(base.spec)
    space = Mixed().search_space(base.spec)
    assert all(("prefix" in parts) <= (family != "deberta-v2") for parts in space["parts"].choices)
    params = space.nearest({"parts": ALL, "parallel_factor": 2, "sequential_factor": 2})
    model = moved(attach(base, Mixed(), params))
    model(**batch()).loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in trainable(model).values())


def test_who_takes_too_few_parts_is_told():
    spec = dataclasses.replace(tiny_base("bert").spec, has_attention_interface=False)
    assert Mixed().supports(spec)
    up = tuple(linear for linear in spec.linears if linear.role != "feed_forward_up")
    reason = Mixed().supports(dataclasses.replace(spec, linears=up)).reason
    assert "takes only the sequential one" in reason


def test_all_parts_together_pack_and_leave_the_layers_below_alone():
    base = tiny_base("bert")
    assert lowest_trained(mixed("bert", ALL, layers="top_quarter"), base.spec) == 3
    assert packable(lambda: mixed("bert", ALL), gradients, TOGETHER, torch.float32) is False, "module by module"
