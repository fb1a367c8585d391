"""Results of operations on fake tensors, with a shortcut if the result's shape is simple.

PyTorch's fake mode is general: it looks up every call in a cache by all its arguments, and works out new calls in
Python, which takes milliseconds. A training step consists mostly of a few operations whose result one line can give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

aten = torch.ops.aten

BY_VALUE = (
    aten.unique_consecutive.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten._index_put_impl_.default,
)
"""Operations whose result's size may depend on values, which fake tensors do not have."""

VIEWS = frozenset(
    (
        aten._unsafe_view.default,
        aten.alias.default,
        aten.detach.default,
        aten.expand.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.t.default,
        aten.transpose.int,
        aten.unsqueeze.default,
        aten.view.default,
    )
)
"""Operations that make no storage, half of all in a step."""


def view(func: Any, args: tuple[Any, ...]) -> FakeTensor:
    """Run the operation on a fake tensor without the general fake mode, which takes four times as long."""
    mode = args[0].fake_mode
    with in_kernel_invocation_manager(mode):
        shape: Any = func(*args)
    return FakeTensor(mode, shape, args[0].fake_device)


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the operation, also on real tensors; if its result on fake ones is simple, without the fake mode."""
    first = args[0] if args else None
    if not isinstance(first, FakeTensor):
        nothing_to_do = func in UPDATES and first and isinstance(first[0], FakeTensor)
        return None if nothing_to_do else func(*args, **kwargs)
    if func in BY_VALUE:
        return _one_token_a_row(func, args, kwargs)
    shape = SHAPES[func](args, kwargs) if func in SHAPES and first.constant is None else None
    if shape is None:
        return func(*args, **kwargs)
    if func in IN_PLACE:
        return first
    with in_kernel_invocation_manager(first.fake_mode):
        made = torch.empty(shape, dtype=first.dtype, device="meta")
    return FakeTensor(first.fake_mode, made, first.fake_device)


def _one_token_a_row(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the operation on fake tensors, assuming that a mask `[rows, tokens]` picks one token of each row.

    T5's and BART's classifiers pick each row's last token this way, after checking that all rows have equally many.
    """
    first = args[0]
    if func is aten.unique_consecutive.default:
        return first[:1], first[:0], first[:0]
    indices = args[1]
    if len(indices) == 1 and indices[0] is not None and indices[0].dtype is torch.bool and indices[0].ndim == 2:
        rows = torch.arange(len(indices[0]), device=first.device)
        indices = [rows, torch.zeros_like(rows)]
    return func(first, indices, *args[2:], **kwargs)


def _product(args: Sequence[Any], _: Mapping[str, Any]) -> list[int] | None:
    """The product's shape, of `[..., n, k]` and `[..., k, m]`."""
    left, right = args
    fits = _alike(left, right) and left.shape[:-2] == right.shape[:-2] and left.shape[-1] == right.shape[-2]
    return [*left.shape[:-1], right.shape[-1]] if fits else None


def _biased_product(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[int] | None:
    """The product's shape, of a bias `[m]`, `[n, k]` and `[k, m]`."""
    bias, *factors = args
    fits = _alike(bias, factors[0]) and bias.shape == factors[1].shape[1:]
    return _product(factors, kwargs) if fits else None


def _as_first(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Size | None:
    """The first tensor's shape, if it is floating-point and contiguous and the others broadcast to it."""
    first = args[0]
    if kwargs.keys() - LAYOUT or not first.is_floating_point() or not first.is_contiguous():
        return None
    shape = first.shape
    for other in args[1:]:
        if isinstance(other, torch.Tensor):
            fits = _alike(first, other) and other.is_contiguous() and other.ndim <= len(shape)
            if not fits or any(n not in (1, m) for n, m in zip(reversed(other.shape), reversed(shape), strict=False)):
                return None
        elif isinstance(other, complex):
            return None
    return shape if kwargs.get("memory_format") in DENSE else None


def _alike(one: Any, other: Any) -> bool:
    """Whether two fake tensors are on the same device and of the same kind."""
    return isinstance(other, FakeTensor) and one.fake_device == other.fake_device and one.dtype == other.dtype


def _norm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[()] | None:
    """The shape of one number, for a norm of all elements."""
    return () if len(args) == 2 and not kwargs and args[0].is_floating_point() else None


LAYOUT = {"memory_format", "pin_memory"}
DENSE = (None, torch.preserve_format, torch.contiguous_format)

SHAPES: dict[Any, Callable[[Sequence[Any], Mapping[str, Any]], Sequence[int] | None]] = {
    aten.addmm.default: _biased_product,
    aten.bmm.default: _product,
    aten.mm.default: _product,
    aten.linalg_vector_norm.default: _norm,
    **dict.fromkeys(
        (
            aten.add.Tensor,
            aten.add_.Tensor,
            aten.bernoulli_.float,
            aten.clone.default,
            aten.div.Tensor,
            aten.empty_like.default,
            aten.gelu.default,
            aten.gelu_backward.default,
            aten.mul.Scalar,
            aten.mul.Tensor,
            aten.mul_.Tensor,
            aten.silu.default,
            aten.silu_backward.default,
            aten.zeros_like.default,
        ),
        _as_first,
    ),
}
"""Operations that return one tensor of the kind of their first, and its shape; None if it is not that simple."""

IN_PLACE = frozenset((aten.add_.Tensor, aten.bernoulli_.float, aten.mul_.Tensor))
"""Those of them that return their first tensor itself."""

UPDATES = frozenset((aten._foreach_add_.Scalar, aten._fused_adamw_.default))
"""Operations in place on lists of tensors, which return nothing and have nothing to do on fake tensors."""
