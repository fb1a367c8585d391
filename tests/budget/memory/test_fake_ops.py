"""The short way says of an operation's result what PyTorch's fake mode says."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autopeft.budget.memory import fake_ops, live_bytes, peak
from autopeft.models.attach import attach
from autopeft.models.modes import train_mode
from tests.budget.memory.test_peak import METHODS, PRECISIONS, shapes, stepper
from tests.conftest import few
from tests.tiny_models import tiny_base

RUN = fake_ops.run
aten = torch.ops.aten


def told(result):
    """All that a prediction could see of it."""
    storage = result.untyped_storage().nbytes()
    return type(result), result.shape, result.stride(), result.dtype, result.device, result.storage_offset(), storage


@pytest.fixture
def seen(monkeypatch):
    """Operations that went the short way in a prediction, each compared with the general one."""
    found = set()

    def run(func, args, kwargs):
        expected = func(*args, **kwargs) if func in fake_ops.SHAPES else None
        result = RUN(func, args, kwargs)
        if func in fake_ops.SHAPES:
            assert told(result) == told(expected), func
            found.add(func)
        return result

    monkeypatch.setattr(live_bytes, "run", run)
    return found


@PRECISIONS
@pytest.mark.parametrize("name", few(METHODS, "lora", "adapter", "adalora"))
@pytest.mark.parametrize("family", few(("bert", "llama", "gpt2", "deberta-v2", "t5"), "bert", "llama"))
def test_every_operation_of_a_step(seen, family, name, autocast):
    base = tiny_base(family)
    if not METHODS[name].supports(base.spec):
        pytest.skip("the method does not support it")
    model = attach(base, METHODS[name], METHODS[name].search_space(base.spec).defaults(), meta=True)
    train_mode(model)
    peak.predict(model, stepper(autocast), shapes(4, 12), whole=True)
    assert len(seen) > 8


FLAT = {"memory_format": torch.contiguous_format}
CASES = {
    "broadcast_second": (aten.add.Tensor, ((4, 3), (3,)), {}),
    "broadcast_first": (aten.add.Tensor, ((3,), (4, 3)), {}),
    "both_broadcast": (aten.mul.Tensor, ((4, 1), (1, 3)), {}),
    "mixed_dtypes": (aten.mul.Tensor, ((4, 3), torch.zeros(4, 3, dtype=torch.float64)), {}),
    "whole_numbers": (aten.div.Tensor, (torch.ones(4, 3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)), {}),
    "a_number": (aten.mul.Scalar, ((4, 3), 2.5), {}),
    "transposed": (aten.clone.default, (torch.zeros(4, 3).t(),), {}),
    "made_contiguous": (aten.clone.default, (torch.zeros(4, 3).t(),), FLAT),
    "with_gaps": (aten.zeros_like.default, (torch.zeros(4, 6)[:, ::2],), {}),
    "another_dtype": (aten.zeros_like.default, ((4, 3),), {"dtype": torch.float16}),
    "channels_last": (aten.clone.default, (torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last),), {}),
    "made_channels_last": (aten.clone.default, ((2, 3, 4, 5),), {"memory_format": torch.channels_last}),
    "norm_of_all": (aten.linalg_vector_norm.default, ((4, 3), 2.0), {}),
    "norm_of_rows": (aten.linalg_vector_norm.default, ((4, 3), 2.0, [1], True), {}),
    "batched_product": (aten.bmm.default, ((2, 4, 3), (2, 3, 5)), {}),
    "product_with_scale": (aten.addmm.default, ((5,), (4, 3), (3, 5)), {"alpha": 2}),
    "empty": (aten.mm.default, ((0, 3), (3, 5)), {}),
}


@pytest.mark.parametrize("case", CASES)
def test_results_that_are_not_so_plain(case):
    func, args, kwargs = CASES[case]
    made = [torch.zeros(arg) if isinstance(arg, tuple) else arg for arg in args]
    with FakeTensorMode() as mode:
        made = [mode.from_tensor(arg) if isinstance(arg, torch.Tensor) else arg for arg in made]
        assert isinstance(made[0], FakeTensor)
        assert told(RUN(func, tuple(made), dict(kwargs))) == told(func(*made, **kwargs))


IMPOSSIBLE = {
    "product": (aten.mm.default, (4, 3), (4, 3), "cpu"),
    "added_in_place": (aten.add_.Tensor, (3,), (4, 3), "cpu"),
    "two_devices": (aten.mm.default, (4, 3), (3, 5), "meta"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_is_an_error(case):
    func, left, right, device = IMPOSSIBLE[case]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tensors = mode.from_tensor(torch.zeros(left)), mode.from_tensor(torch.zeros(right, device=device))
        with pytest.raises(RuntimeError):
            RUN(func, tensors, {})


def test_updates_in_place_change_no_shape():
    with FakeTensorMode() as mode:
        tensors = [mode.from_tensor(torch.zeros(3)) for _ in range(2)]
        assert RUN(aten._foreach_add_.Scalar, (tensors, 1), {}) is None
        assert RUN(aten.mul_.Tensor, (tensors[0], 2.0), {}) is tensors[0]


def test_on_real_tensors_every_operation_is_done():
    """A meter over a real step must not change it."""
    tensors = [torch.ones(3), torch.ones(2)]
    RUN(aten._foreach_add_.Scalar, (tensors, 1), {})
    assert RUN(aten.mul_.Tensor, (tensors[0], 2.0), {}) is tensors[0]
    assert [tensor.tolist() for tensor in tensors] == [[4, 4, 4], [2, 2]]
