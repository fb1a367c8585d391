"""Bottleneck adapters: where each placement puts them, what they compute and cost, and that copies are independent."""

import copy

import pytest
import torch
from autopeft_adapter import Adapter
from autopeft_adapter.adapter import Bottleneck, ParallelAdapter, SequentialAdapter, Tap
from torch.func import functional_call, grad, vmap

from autopeft import layer_groups
from autopeft.models.attach import attach, trainable
from tests.tiny_models import batch, tiny_base

PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
DEFAULTS = {"placement": "pfeiffer", "reduction_factor": 4, "non_linearity": "relu", "layers": "all"}


def adapted(family, meta=False, **changes):
    """A model whose adapters are past their zero start."""
    model = attach(tiny_base(family), Adapter(), {**DEFAULTS, **changes}, meta=meta)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            if ".adapter.up." in name:
                parameter.normal_(std=0.3)
    return model.eval()


def of_type(model, kind):
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


@pytest.mark.parametrize(
    ("placement", "roles"),
    [
        ("houlsby", ("attention_output", "feed_forward_down")),
        ("pfeiffer", ("feed_forward_down",)),
        ("parallel", ("feed_forward_down",)),
    ],
)
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert", "albert"])
def test_a_placement_puts_one_adapter_on_each_of_its_sublayers(family, placement, roles):
    model, spec = adapted(family, meta=True, placement=placement), tiny_base(family).spec
    kind = ParallelAdapter if placement == "parallel" else SequentialAdapter
    assert tuple(of_type(model, kind)) == spec.modules(*roles)
    width, size = 32, 32 // 4
    count = sum(p.numel() for name, p in trainable(model).items() if ".adapter." in name)
    assert count == len(spec.modules(*roles)) * (2 * width * size + width + size)


@pytest.mark.parametrize("family", ["bert", "gpt2", "opt", "llama", "modernbert", "deberta-v2", "albert"])
def test_a_parallel_adapter_adds_what_it_makes_of_the_sublayers_input(family):
    model = adapted(family, placement="parallel")
    taps, inputs, checked = list(of_type(model, Tap).values()), [], []

    def check(module, arguments, output):
        (x,) = inputs.pop()
        torch.testing.assert_close(output, module.base(*arguments) + module.adapter(x))
        assert not torch.equal(output, module.base(*arguments))
        checked.append(module)

    for tap in taps:
        tap.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments))
    for module in of_type(model, ParallelAdapter).values():
        module.register_forward_hook(check)
    model(**batch())
    assert len(checked) == 4  # every layer that runs; ALBERT runs its one stored layer four times
    assert all(tap._input is None for tap in taps)  # nothing keeps the graph alive


def test_a_sequential_adapter_adds_what_it_makes_of_the_projections_output():
    adapter = Bottleneck(4, 2, "gelu", like=torch.empty(0))
    torch.nn.init.normal_(adapter.up.weight)
    base, x = torch.nn.Linear(6, 4), torch.randn(3, 6)
    h = base(x)
    bottleneck = torch.nn.functional.gelu(h @ adapter.down.weight.T) @ adapter.up.weight.T
    torch.testing.assert_close(SequentialAdapter(base, adapter)(x), h + bottleneck)


def test_the_bottleneck_is_never_narrower_than_one():
    model = adapted("bert", meta=True, reduction_factor=64)
    assert {module.down.out_features for module in of_type(model, Bottleneck).values()} == {1}


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (1, {"all": (0,)}),
        (2, {"all": (0, 1), "top_half": (1,)}),
        (
            6,
            {"all": (0, 1, 2, 3, 4, 5), "top_half": (3, 4, 5), "top_quarter": (4, 5), "every_second": (1, 3, 5)},
        ),
    ],
)
def test_layer_groups_that_coincide_are_offered_once(depth, expected):
    assert layer_groups(depth) == expected


@pytest.mark.parametrize("layers", ["top_half", "top_quarter", "every_second"])
def test_adapters_go_on_the_chosen_layers_only(layers):
    names = of_type(adapted("bert", meta=True, layers=layers), SequentialAdapter)
    assert {int(name.split(".")[3]) for name in names} == set(layer_groups(4)[layers])


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_copy_is_a_model_of_its_own(placement):
    model, rows = adapted("albert", placement=placement), batch()
    twin = copy.deepcopy(model)
    expected = model(**rows).logits
    torch.testing.assert_close(twin(**rows).logits, expected)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.zero_()
    torch.testing.assert_close(twin(**rows).logits, expected)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_many_adapters_in_one_pass_learn_as_they_do_alone(placement):
    model = adapted("bert", placement=placement)
    model.set_attn_implementation("eager")  # the fused kernel has no batching rule on CPU and warns
    weights = {
        n: torch.stack([p.detach() + 0.1 * torch.randn_like(p) for _ in range(3)]) for n, p in trainable(model).items()
    }
    folds = [batch(seed=seed) for seed in range(3)]
    rows = {name: torch.stack([fold[name] for fold in folds]) for name in folds[0]}
    mask = torch.where(rows["attention_mask"].bool(), 0.0, -1e9)[:, :, None, None, :]  # 4-D: vmap forbids `.all()`

    def loss(own, input_ids, attention_mask, labels):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        return torch.nn.functional.cross_entropy(functional_call(model, own, (), inputs).logits, labels)

    arguments = (weights, rows["input_ids"], mask, rows["labels"])
    together = vmap(grad(loss))(*arguments)
    for fold in range(3):
        alone = grad(loss)({n: w[fold] for n, w in weights.items()}, *(a[fold] for a in arguments[1:]))
        for name, gradient in alone.items():
            torch.testing.assert_close(together[name][fold], gradient, atol=1e-6, rtol=1e-4)
