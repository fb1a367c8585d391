"""Peak memory of a training step: predicted on fake tensors without weights or a GPU, and measured on real ones.

Both go through one instrument. `LiveBytes` follows every storage from its creation to its release while a whole step
(forward, loss, backward, update) runs. On fake tensors, which have shapes but no data, that is a prediction that
needs no weights; on real ones it is a measurement.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autopeft import allocator, gpu
from autopeft.dropout import fused_dropout
from autopeft.fake import VIEWS, run, view
from autopeft.repetition import ACTIVATIONS, Event, Irregular, Shortcut

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence


ATTENTION = {
    torch.ops.aten._scaled_dot_product_cudnn_attention_backward.default,
    torch.ops.aten._scaled_dot_product_flash_attention_backward.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}
"""Backward passes of attention, by the kernels that take a half precision on a GPU, or stand for them."""

HOLDERS = getattr(torch._C, "_storage_Use_Count", None)
"""Of a storage; builds of PyTorch before 2.8 for a CPU alone cannot tell."""

ALONE = 2
"""Holders of a storage that nobody else has: its tensor, and who asks."""

PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
}
"""Operations that cuBLAS does."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step.

    Attributes:
        weights: parameters and buffers, frozen and trained.
        gradients: of the trained parameters, as far as they are there at the peak.
        optimizer: its state.
        activations: all else alive at the peak: saved for backward, transient, the batch itself. On a GPU also what the
            allocator's blocks have over.
        workspace: what the device's libraries hold from the first step on.
        segments: what a GPU's allocator holds at its own peak beyond all these.
        context: what the driver takes for a process on a GPU.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int = 0
    segments: int = 0
    context: int = 0

    @property
    def allocated(self) -> int:
        """What tensors and libraries hold; `torch.cuda.max_memory_allocated` tells the same."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.workspace

    @property
    def peak(self) -> int:
        """All of them: what the process takes on the device."""
        return self.allocated + self.segments + self.context

    def to_dict(self) -> dict[str, int]:
        """Every part and the peak."""
        return {**asdict(self), "peak": self.peak}


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Follows every tensor storage that is made while this mode is on, from its creation to its release.

    Storages are numbered as they come. Views count once, with the storage they share. Memory that a kernel takes and
    gives back before it returns is not seen, but for some: that of a softmax, and on a GPU of sums and of attention.

    Args:
        on_gpu: kernels and libraries are to be those of a GPU, and every storage is rounded up to its allocator's
            blocks.
    """

    def __init__(self, *, on_gpu: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.on_gpu, self.block = on_gpu, allocator.BLOCK if on_gpu else 1
        self._history: list[tuple[int, int]] = []  # (number, bytes), the bytes negative at its release
        self._alive: dict[int, tuple[int, weakref.finalize[Any, Any]]] = {}  # by address
        self._workspaces: dict[bool, list[torch.Tensor]] = {}  # in the backward pass or not

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # a guard for compiled code, which costs two Python calls an operation

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
                self.count(leaf)  # of a dropout's the mask is made first
        if func is torch.ops.aten._safe_softmax.default:  # its kernel also holds a mask of the scores, a byte each
            self.count(torch.empty_like(result, dtype=torch.bool))
        elif self.on_gpu:
            self._count_unseen(func, args, result)
        return result

    def _count_unseen(self, func: Any, args: tuple[Any, ...], result: Any) -> None:
        """What kernels of a GPU take beside their results."""
        if func in PRODUCTS and (backward := _in_backward()) not in self._workspaces:
            sizes = gpu.workspaces()[backward]
            self._workspaces[backward] = [torch.empty(size, dtype=torch.uint8, device=result.device) for size in sizes]
            for workspace in self._workspaces[backward]:
                self.count(workspace)
            return
        scratch = 0
        if func is torch.ops.aten.sum.dim_IntList and result.numel():
            last = args[0].ndim - 1
            outer = not {last, -1} & {*(args[1] or (last,))}  # over the last dimension, a row is one block's
            scratch = gpu.sum_scratch(args[0].numel() // result.numel(), result.numel()) if outer else 0
        elif func in ATTENTION:
            scratch = gpu.attention_scratch(args[1])
        if scratch:
            self.count(torch.empty(scratch, dtype=torch.uint8, device=args[0].device))

    def __exit__(self, *error: object) -> None:
        """Follow no storage any more."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for _, finalizer in self._alive.values():
            finalizer.detach()
        self._alive.clear()

    @property
    def alive(self) -> frozenset[int]:
        """Numbers of the storages that are there now."""
        return frozenset(number for number, _ in self._alive.values())

    @property
    def workspaces(self) -> frozenset[int]:
        """Numbers of what the device's libraries keep from their first products on."""
        return frozenset(self.count(tensor) for kept in self._workspaces.values() for tensor in kept)

    @property
    def clock(self) -> int:
        """How many times something was taken or released so far."""
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
        """All that was taken and released, in order.

        Args:
            resident: numbers of the storages that count as if alive all along: they stand before all that happens,
                and in their place nothing is taken or released.
            kinds: names of storages' numbers; what is in none is an activation.
        """
        named = kinds or {}

        def kind(number: int) -> str:
            return next((name for name, numbers in named.items() if number in numbers), ACTIVATIONS)

        events = [Event(kind(number), size, number) for number, size in self._history]
        always = [event for event in events if event.size >= 0 and event.born in resident]
        return [*always, *(event._replace(size=0) if event.born in resident else event for event in events)]

    def _release(self, address: int, size: int) -> None:
        number, _ = self._alive.pop(address)
        self._history.append((number, -size))


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _in_place(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> bool:
    """Whether it is two gradients of one tensor that are added.

    The first one is then overwritten, unless somebody else has it; of a fake one PyTorch makes a new one each time.
    After `can_accumulate_inplace` in PyTorch's torch/csrc/autograd/input_buffer.cpp.
    """
    first, second = args[:2]
    if (
        kwargs or torch.is_grad_enabled() or not _in_backward()
    ):  # a layer that runs again for its backward pass adds too
        return False
    if not (isinstance(first, FakeTensor) and isinstance(second, FakeTensor)):
        return False
    storage = first.untyped_storage()
    alike = (first.shape, first.dtype) == (second.shape, second.dtype) and storage.nbytes() >= first.nbytes  # expanded
    return alike and HOLDERS is not None and bool(HOLDERS(storage._cdata) <= ALONE)


def predict(
    module: nn.Module,
    make_step: Callable[[nn.Module], Callable[[Mapping[str, torch.Tensor]], object]],
    shapes: Mapping[str, tuple[int, ...]],
    device: str = "cpu",
    *,
    whole: bool = False,
) -> MemoryEstimate:
    """Predict the peak of a training step, without data, weights or the device.

    One step is enough for the peak of a later one: whatever outlives it (the optimiser's state, mostly) is there from
    the start of the next, and is counted so. Of a run of equal layers three are enough for all (`repetition`).

    For "cuda" without one, kernels are those of the CPU: PyTorch may choose another attention there.

    Args:
        module: on the meta device, with gradients required as for training; afterwards its tensors are fake.
        make_step: given the module, makes its optimiser and returns the step, which takes a batch.
        shapes: of the batch's tensors, by name: int64, but float32 where there are three dimensions or more.
        device: whose kernels and allocator to account for.
        whole: run every layer.
    """
    if not whole:
        with suppress(Irregular):
            return _trace(module, make_step, shapes, device, spare=True)
    return _trace(module, make_step, shapes, device, spare=False)


def _trace(
    module: nn.Module,
    make_step: Callable[[nn.Module], Callable[[Mapping[str, torch.Tensor]], object]],
    shapes: Mapping[str, tuple[int, ...]],
    device: str,
    *,
    spare: bool,
) -> MemoryEstimate:
    """The peak of a step on fake tensors.

    Raises:
        Irregular: where layers may be spared, they turned out not to be alike.
    """
    on_gpu = device == "cuda"
    if on_gpu:
        gpu.workspaces()  # measured before the modes are on, if it was not yet
    place = device if torch.cuda.is_available() else "cpu"  # PyTorch needs the device even for fake tensors on it
    gradients: set[int] = set()
    # Made before the modes are on, which would take a hundred times as long.
    tensors = (*module.parameters(), *module.buffers())
    bare = {id(t): torch.empty(t.shape, dtype=t.dtype, device="meta") for t in tensors}
    with (
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
        LiveBytes(on_gpu=on_gpu) as live,
        ExitStack() as stack,
    ):
        if on_gpu and place == "cpu":
            stack.enter_context(fused_dropout())
        _materialise(module, lambda tensor: FakeTensor(mode, bare[id(tensor)], torch.device(place)))
        for tensor in (*module.parameters(), *module.buffers()):
            live.count(tensor)
        weights = live.alive

        def count_gradient(parameter: Any) -> int:
            number: int = live.count(parameter.grad)
            gradients.add(number)
            return number

        trained: list[Any] = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in trained:
            hook = parameter.register_post_accumulate_grad_hook(lambda p: gradients.add(live.count(p.grad)))
            stack.callback(hook.remove)
        kinds_of = {name: torch.int64 if len(shape) < 3 else torch.float32 for name, shape in shapes.items()}
        batch = {name: torch.zeros(shape, dtype=kinds_of[name], device=place) for name, shape in shapes.items()}
        step = make_step(module)
        shortcut = stack.enter_context(Shortcut(module, lambda: live.clock, count_gradient)) if spare else None
        before = live.alive
        step(batch)
        resident, workspaces = live.alive, live.workspaces
    kinds = {
        "weights": weights,
        "gradients": gradients - weights,
        "optimizer": resident - before - gradients - workspaces,
        "workspace": workspaces,
    }

    def trace(resident: frozenset[int]) -> list[Event]:
        events = live.trace(resident, kinds)
        return shortcut.extended(events) if shortcut else events

    settled = trace(resident)
    found = at_peak(settled)
    estimate = MemoryEstimate(**{kind: found.get(kind, 0) for kind in (*kinds, ACTIVATIONS)})
    if not on_gpu:
        return estimate
    second = settled[len(resident) :]  # what is there all along stands first
    need = allocator.needed([trace(frozenset()), second])
    over = max(0, need.used - estimate.allocated)
    return replace(
        estimate,
        activations=estimate.activations + over,
        segments=max(0, need.held - estimate.allocated - over),
        context=gpu.context(),
    )


def at_peak(trace: Sequence[Event]) -> dict[str, int]:
    """Bytes alive when most are, by kind."""
    totals = list(accumulate(event.size for event in trace))
    end = totals.index(max(totals)) + 1 if totals else 0
    found: dict[str, int] = {}
    for event in trace[:end]:
        found[event.kind] = found.get(event.kind, 0) + event.size
    return found


def measure(
    step: Callable[[], object], module: nn.Module, device: str = "cpu", others: Iterable[torch.Tensor] = ()
) -> int:
    """Peak bytes of `step`, a real training step on `module`, with the optimiser's state as every later one has it.

    Args:
        step: runs forward, backward and update.
        module: what it trains.
        device: where that is.
        others: tensors that are there before the step, such as its batch. On "cuda" all that is there counts anyway,
            with what the allocator and the driver take beside it.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        torch.cuda.synchronize()
        return gpu.taken()
    with LiveBytes() as live:
        for tensor in (*module.parameters(), *module.buffers(), *others):
            live.count(tensor)
        step()
        resident = live.alive  # the optimiser's state, which every later step finds there
    return sum(at_peak(live.trace(resident)).values())


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages behind them, each once."""
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())


def supports_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 matrices natively; emulated it would be slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _materialise(module: nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Put new tensors in the place of a module's own, tied ones still tied."""
    made: dict[int, Any] = {}
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    made[id(parameter)] = nn.Parameter(make(parameter), requires_grad=parameter.requires_grad)
                owner._parameters[name] = made[id(parameter)]
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = made.setdefault(id(buffer), make(buffer))
