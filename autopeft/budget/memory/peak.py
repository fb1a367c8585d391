"""Peak memory of a training step: predicted on fake tensors without weights or a GPU, and measured on real ones.

Both go through one instrument, `live_bytes.LiveBytes`, while a whole step (forward, loss, backward, update) runs.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autopeft.budget.memory import allocator, gpu
from autopeft.budget.memory.cached_tensors import clear_cached_tensors
from autopeft.budget.memory.events import ACTIVATIONS
from autopeft.budget.memory.live_bytes import LiveBytes
from autopeft.budget.memory.repeated_layers import LayersDiffer, Shortcut
from autopeft.models.dropout import fused_dropout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from autopeft.budget.memory.events import Event


Shape = tuple[int, ...] | tuple[tuple[int, ...], torch.dtype]
"""The size of an int64 tensor; for any other tensor, its size and type."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step.

    Attributes:
        weights: parameters and buffers, frozen and trained.
        gradients: of the trained parameters, as far as they exist at the peak.
        optimizer: its state.
        activations: everything else alive at the peak: saved for backward, temporary, the batch itself. On a GPU also
            the rounding of the allocator's blocks.
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
        """What tensors and libraries hold; `torch.cuda.max_memory_allocated` gives the same."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.workspace

    @property
    def peak(self) -> int:
        """The sum of all: what the process takes on the device."""
        return self.allocated + self.segments + self.context

    def to_dict(self) -> dict[str, int]:
        """Every part and the peak."""
        return {**asdict(self), "peak": self.peak}


def predict(
    module: nn.Module,
    make_step: Callable[[nn.Module], Callable[[Mapping[str, torch.Tensor]], object]],
    shapes: Mapping[str, Shape],
    device: str = "cpu",
    *,
    whole: bool = False,
) -> MemoryEstimate:
    """Predict the peak of a training step, without data, weights or the device.

    One step is enough for the peak of a later one: whatever outlives it (mostly the optimiser's state) exists from the
    start of the next, and is counted that way. Three layers stand for a run of equal ones (`repeated_layers`).

    For "cuda" without a GPU, kernels are those of the CPU: PyTorch may choose another attention there.

    Args:
        module: on the meta device, with gradients required as for training; afterwards its tensors are fake.
        make_step: given the module, makes its optimiser and returns the step, which takes a batch.
        shapes: of the batch's tensors, by name; with the type if it is not int64.
        device: whose kernels and allocator to account for.
        whole: run every layer.
    """
    if not whole:
        with suppress(LayersDiffer):
            return _estimate(_trace(module, make_step, shapes, device, spare=True))
    return _estimate(_trace(module, make_step, shapes, device, spare=False))


@dataclass(frozen=True)
class _Step:
    """A traced step.

    Attributes:
        live: followed its storages.
        shortcut: stands for the skipped layers; None if every layer ran.
        resident: numbers of the storages that exist after the step, and so before every later one.
        kinds: numbers of storages by what they hold; all others hold activations.
    """

    live: LiveBytes
    shortcut: Shortcut | None
    resident: frozenset[int]
    kinds: Mapping[str, frozenset[int]]

    def events(self, resident: frozenset[int]) -> list[Event]:
        """Allocations and releases if the storages with these numbers exist all along.

        Raises:
            LayersDiffer: layers were spared, but turned out not to be alike.
        """
        events = self.live.trace(resident, self.kinds)
        return self.shortcut.extended(events) if self.shortcut else events


def _trace(
    module: nn.Module,
    make_step: Callable[[nn.Module], Callable[[Mapping[str, torch.Tensor]], object]],
    shapes: Mapping[str, Shape],
    device: str,
    *,
    spare: bool,
) -> _Step:
    """Run a step on fake tensors; with `spare`, only three layers of a run of equal ones."""
    on_gpu = device == "cuda"
    if on_gpu:
        gpu.workspaces()  # measured before the modes are on, if not yet measured
    place = device if torch.cuda.is_available() else "cpu"  # PyTorch needs the device even for fake tensors on it
    gradients: set[int] = set()
    # Made before the modes are on: with them it would take a hundred times as long.
    tensors = (*module.parameters(), *module.buffers())
    bare = {id(t): torch.empty(t.shape, dtype=t.dtype, device="meta") for t in tensors}
    clear_cached_tensors(module)  # a real tensor there would not count
    with (
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
        LiveBytes(on_gpu=on_gpu) as live,
        ExitStack() as stack,
    ):
        stack.callback(clear_cached_tensors, module)
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
        batch = {name: _zeros(shape, place) for name, shape in shapes.items()}
        step = make_step(module)
        shortcut = stack.enter_context(Shortcut(module, lambda: live.clock, count_gradient)) if spare else None
        before = live.alive
        step(batch)
        resident, workspaces = live.alive, live.workspaces
    kinds = {
        "weights": weights,
        "gradients": frozenset(gradients) - weights,
        "optimizer": resident - before - gradients - workspaces,
        "workspace": workspaces,
    }
    return _Step(live, shortcut, resident, kinds)


def _estimate(step: _Step) -> MemoryEstimate:
    """The peak of a traced step.

    Raises:
        LayersDiffer: layers were spared, but turned out not to be alike.
    """
    settled = step.events(step.resident)
    found = at_peak(settled)
    estimate = MemoryEstimate(**{kind: found.get(kind, 0) for kind in (*step.kinds, ACTIVATIONS)})
    if not step.live.on_gpu:
        return estimate
    second = settled[len(step.resident) :]  # what exists all along comes first
    need = allocator.needed([step.events(frozenset()), second])
    over = max(0, need.used - estimate.allocated)
    return replace(
        estimate,
        activations=estimate.activations + over,
        segments=max(0, need.held - estimate.allocated - over),
        context=gpu.context(),
    )


def _zeros(shape: Shape, device: str) -> torch.Tensor:
    size, dtype = (shape, torch.int64) if all(isinstance(part, int) for part in shape) else shape
    return torch.zeros(size, dtype=dtype, device=device)  # type: ignore[arg-type]  # a pair of a size and a type


def at_peak(trace: Sequence[Event]) -> dict[str, int]:
    """Bytes alive at the peak, by kind."""
    totals = list(accumulate(event.size for event in trace))
    end = totals.index(max(totals)) + 1 if totals else 0
    found: dict[str, int] = {}
    for event in trace[:end]:
        found[event.kind] = found.get(event.kind, 0) + event.size
    return found


def measure(
    step: Callable[[], object], module: nn.Module, device: str = "cpu", others: Iterable[torch.Tensor] = ()
) -> int:
    """Peak bytes of `step`, a real training step on `module`, with the optimiser's state, as in every later one.

    Args:
        step: runs forward, backward and update.
        module: what it trains.
        device: where the module is.
        others: tensors that exist before the step, such as its batch. On "cuda" everything counts anyway, with what the
            allocator and the driver take besides.
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
        resident = live.alive  # the optimiser's state, which every later step starts with
    return sum(at_peak(live.trace(resident)).values())


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the tensors, each counted once."""
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())


def _materialise(module: nn.Module, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace a module's tensors by new ones, and keep tied ones tied."""
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
