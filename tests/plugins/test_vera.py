"""VeRA: what a target costs, and that its projections are one pair, always the same, whatever else is drawn."""

import copy

import pytest
import torch
from autopeft_vera import Vera
from autopeft_vera.method import TARGETS

from autopeft.models.attach import attach, trainable
from tests.tiny_models import batch, tiny_base

PARAMS = {"r": 16, "d_initial": 0.1, "target_modules": "query_value", "vera_dropout": 0.0}


def vera(family="bert", *, seed=0, meta=False, **changes):
    return attach(tiny_base(family), Vera(), {**PARAMS, **changes}, seed=seed, meta=meta)


def projections(model):
    return {name: buffer for name, buffer in model.named_buffers() if "vera_A" in name or "vera_B" in name}


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "albert", "deberta-v2"])
@pytest.mark.parametrize("group", TARGETS.names)
def test_a_target_costs_the_rank_and_its_output(family, group):
    base = tiny_base(family)
    model = vera(family, meta=True, target_modules=group)
    add_on = sum(parameter.numel() for name, parameter in trainable(model).items() if "vera_lambda" in name)
    wanted = [linear for linear in base.spec.linears if linear.name in TARGETS.on(base.spec)[group]]
    assert add_on == sum(PARAMS["r"] + linear.out_features for linear in wanted) > 0


def test_two_projections_serve_all_targets_and_do_not_depend_on_the_seed():
    first, other = vera(target_modules="all_linear"), vera(target_modules="all_linear", seed=7)
    found, again = projections(first), projections(other)
    assert [tuple(tensor.shape) for tensor in found.values()] == [(16, 64), (64, 16)]  # the widest input and output
    assert all(torch.equal(found[name], again[name]) for name in found)
    twin = projections(copy.deepcopy(first))
    assert len(twin) == 2
    assert not {t.data_ptr() for t in twin.values()} & {t.data_ptr() for t in found.values()}


def test_it_is_the_papers_equation():
    base, model = tiny_base("bert"), vera(target_modules="all_linear")
    down = next(linear for linear in base.spec.linears if linear.role == "feed_forward_down")
    layer = model.get_submodule(f"base_model.model.{down.name}")
    b, d = torch.randn(32), torch.randn(16)
    assert (layer.vera_lambda_d["default"] == 0.1).all()
    layer.vera_lambda_b["default"].data, layer.vera_lambda_d["default"].data = b, d
    a_all, b_all = projections(model).values()
    x = torch.randn(3, 64)
    delta = torch.diag(b) @ b_all[:32] @ torch.diag(d) @ a_all  # Kopiczko et al., equation 2
    torch.testing.assert_close(layer(x), base.module.get_submodule(down.name)(x) + x @ delta.T)


def test_the_precision_of_products_is_autocasts():
    layer = vera().get_submodule("base_model.model." + tiny_base("bert").spec.modules("query")[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 32)).dtype == torch.bfloat16
    assert layer(torch.randn(2, 32)).dtype == torch.float32


def test_its_training_leaves_the_projections_alone():
    model = vera()
    before = {name: tensor.clone() for name, tensor in projections(model).items()}
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=0.1)
    model(**batch()).loss.backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in projections(model).items())
