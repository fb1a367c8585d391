"""Measure the memory of a step: follow every storage from its creation to its release.

On fake tensors, which have shapes but no data, this is a prediction (`peak`), and it can assume a GPU's kernels without
a GPU; on real tensors it is a measurement.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autopeft.budget.memory import allocator, gpu
from autopeft.budget.memory.events import ACTIVATIONS, Event
from autopeft.budget.memory.fake_ops import VIEWS, run, view

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

ATTENTION = {
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward.default,
    torch.ops.aten._scaled_dot_product_flash_attention_backward.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}
"""Backward passes of attention: kernels for half precision on a GPU, or stand-ins for them."""

HOLDERS = getattr(torch._C, "_storage_Use_Count", None)
"""Counts the holders of a storage; CPU-only builds of PyTorch before 2.8 do not have it."""

ALONE = 2
"""Holders of a storage that nobody else holds: its tensor, and the caller."""

PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
}
"""Operations that use cuBLAS."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Follows every tensor storage that is made while this mode is on, from its creation to its release.

    Storages are numbered as they come. Views count once, with the storage they share. Memory that a kernel takes and
    frees before it returns is not seen, with exceptions: softmax, and on a GPU sums and attention.

    Args:
        on_gpu: assume a GPU's kernels and libraries, and round every storage up to its allocator's blocks.
    """

    def __init__(self, *, on_gpu: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_gpu, self.block = on_gpu, allocator.BLOCK if on_gpu else 1
        self._history: list[tuple[int, int]] = []  # (number, bytes); at a release the bytes are negative
        self._alive: dict[int, tuple[int, weakref.finalize[Any, Any]]] = {}  # by address
        self._workspaces: dict[bool, list[torch.Tensor]] = {}  # in the backward pass or not

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # a guard for compiled code, which costs two Python calls per operation

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, then count what it made."""
        if func is torch.ops.prim.device.default and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked thousands of times in a step: a fifth of a prediction's time
        if func in VIEWS and isinstance(args[0], FakeTensor) and args[0].constant is None:
            return view(func, args)
        if self.on_gpu and func is torch.ops.aten.add.Tensor and _in_place(args, kwargs):
            return args[0]
        result = run(func, args, kwargs or {})
        if isinstance(result, torch.Tensor):
            self.count(result)
        elif isinstance(result, (tuple, list)):
            leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
            for leaf in reversed(leaves) if func is torch.ops.aten.native_dropout.default else leaves:
                self.count(leaf)  # a dropout makes its mask first
        if func is torch.ops.aten._safe_softmax.default:  # its kernel also holds a mask of the scores, a byte each
            self.count(torch.empty_like(result, dtype=torch.bool))
        elif self.on_gpu:
            self._count_scratch(func, args, result)
        return result

    def _count_scratch(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """Count what kernels of a GPU take besides their results."""
        if func in PRODUCTS and (backward := _in_backward()) not in self._workspaces:
            sizes = gpu.workspaces()[backward]
            self._workspaces[backward] = [torch.empty(size, dtype=torch.uint8, device=result.device) for size in sizes]
            for workspace in self._workspaces[backward]:
                self.count(workspace)
            return
        scratch = 0
        if func is torch.ops.aten.sum.dim_IntList and result.numel():
            last = args[0].ndim - 1
            outer = not {last, -1} & {*(args[1] or (last,))}  # over the last dimension, one block adds up a row
            scratch = gpu.sum_scratch(args[0].numel() // result.numel(), result.numel()) if outer else 0
        elif func in ATTENTION:
            scratch = gpu.attention_scratch(args[1])
        if scratch:
            self.count(torch.empty(scratch, dtype=torch.uint8, device=args[0].device))

    def __exit__(self, *error: object) -> None:
        """Stop following storages."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for _, finalizer in self._alive.values():
            finalizer.detach()
        self._alive.clear()

    @property
    def alive(self) -> frozenset[int]:
        """Numbers of the storages that exist now."""
        return frozenset(number for number, _ in self._alive.values())

    @property
    def workspaces(self) -> frozenset[int]:
        """Numbers of the storages that the device's libraries keep from their first products on."""
        return frozenset(self.count(tensor) for kept in self._workspaces.values() for tensor in kept)

    @property
    def clock(self) -> int:
        """How many allocations and releases there were so far."""
        return len(self._history)

    def count(self, tensor: torch.Tensor) -> int:
        """Count a tensor's storage from now until its release; returns its number."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._alive:
            return self._alive[address][0]
        number, size = len(self._history), int(-(-storage.nbytes() // self.block) * self.block)
        self._history.append((number, size))
        self._alive[address] = number, weakref.finalize(storage, self._release, address, size)
        return number

    def trace(
        self, resident: frozenset[int] = frozenset(), kinds: Mapping[str, Container[int]] | None = None
    ) -> list[Event]:
        """All allocations and releases, in order.

        Args:
            resident: numbers of the storages that count as alive all along: they come before all other events, and
                their own events become empty.
            kinds: name → numbers of storages; a storage in none is an activation.
        """
        named = kinds or {}

        def kind(number: int) -> str:
            return next((name for name, numbers in named.items() if number in numbers), ACTIVATIONS)

        events = [Event(kind(number), size, number) for number, size in self._history]
        always = [event for event in events if event.size >= 0 and event.allocated_at in resident]
        return [*always, *(event._replace(size=0) if event.allocated_at in resident else event for event in events)]

    def _release(self, address: int, size: int) -> None:
        number, _ = self._alive.pop(address)
        self._history.append((number, -size))


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _in_place(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> bool:
    """Whether the operation adds two gradients of one tensor in place.

    The first one is then overwritten, unless somebody else holds it; for a fake one PyTorch makes a new tensor each
    time.
    After `can_accumulate_inplace` in PyTorch's torch/csrc/autograd/input_buffer.cpp.
    """
    first, second = args[:2]
    if kwargs or torch.is_grad_enabled() or not _in_backward():  # a layer run again for its backward pass adds too
        return False
    if not (isinstance(first, FakeTensor) and isinstance(second, FakeTensor)):
        return False
    storage = first.untyped_storage()
    alike = (first.shape, first.dtype) == (second.shape, second.dtype) and storage.nbytes() >= first.nbytes  # expanded
    return alike and HOLDERS is not None and bool(HOLDERS(storage._cdata) <= ALONE)
