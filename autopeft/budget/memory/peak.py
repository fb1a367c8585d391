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
from autopeft.budget.memory.events import ACTIVATIONS
from autopeft.budget.memory.live_bytes import LiveBytes
from autopeft.budget.memory.repeated_layers import LayersDiffer, Shortcut
from autopeft.models.dropout import fused_dropout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from autopeft.budget.memory.events import Event


Shape = tuple[int, ...] | tuple[tuple[int, ...], torch.dtype]
"""Of a tensor of whole numbers its size, and of any other also its type."""


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


def predict(
    module: nn.Module,
    make_step: Callable[[nn.Module], Callable[[Mapping[str, torch.Tensor]], object]],
    shapes: Mapping[str, Shape],
    device: str = "cpu",
    *,
    whole: bool = False,
) -> MemoryEstimate:
    """Predict the peak of a training step, without data, weights or the device.

    One step is enough for the peak of a later one: whatever outlives it (the optimiser's state, mostly) is there from
    the start of the next, and is counted so. Of a run of equal layers three are enough for all (`repeated_layers`).

    For "cuda" without one, kernels are those of the CPU: PyTorch may choose another attention there.

    Args:
        module: on the meta device, with gradients required as for training; afterwards its tensors are fake.
        make_step: given the module, makes its optimiser and returns the step, which takes a batch.
        shapes: of the batch's tensors, by name; of one that holds no int64, with its type.
        device: whose kernels and allocator to account for.
        whole: run every layer.
    """
    if not whole:
        with suppress(LayersDiffer):
            return _estimate(_trace(module, make_step, shapes, device, spare=True))
    return _estimate(_trace(module, make_step, shapes, device, spare=False))


@dataclass(frozen=True)
class _Step:
    """A step that was traced.

    Attributes:
        live: followed its storages.
        shortcut: stands for the layers that were spared; None where every layer ran.
        resident: numbers of the storages that are there after the step, and so before every later one.
        kinds: numbers of storages by what they hold; all others hold activations.
    """

    live: LiveBytes
    shortcut: Shortcut | None
    resident: frozenset[int]
    kinds: Mapping[str, frozenset[int]]

    def events(self, resident: frozenset[int]) -> list[Event]:
        """What is taken and released where storages of these numbers are there all along.

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
    """The peak of a step that was traced.

    Raises:
        LayersDiffer: layers were spared, but turned out not to be alike.
    """
    settled = step.events(step.resident)
    found = at_peak(settled)
    estimate = MemoryEstimate(**{kind: found.get(kind, 0) for kind in (*step.kinds, ACTIVATIONS)})
    if not step.live.on_gpu:
        return estimate
    second = settled[len(step.resident) :]  # what is there all along stands first
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
