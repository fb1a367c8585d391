"""Peak memory of a training step: predicted on fake tensors without weights or a GPU, and measured on real ones.

Both go through one instrument. `LiveBytes` follows every storage from its creation to its release while a whole step
(forward, loss, backward, update) runs. On fake tensors, which have shapes but no data, that is a prediction that
needs no weights; on real ones it is a measurement.
"""

from __future__ import annotations

import weakref
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CUDA_BLOCK = 512
"""PyTorch's CUDA allocator rounds every block up to this many bytes (kMinBlockSize in CUDACachingAllocator.cpp)."""

CUDA_WORKSPACE = 32 * 2**20
"""What cuBLAS keeps for itself from its first product on: 32 MiB on Hopper, 8 MiB before (CUBLAS_WORKSPACE_CONFIG)."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step.

    Attributes:
        weights: parameters and buffers, frozen and trained.
        gradients: of the trained parameters.
        optimizer: its state.
        activations: all else alive at the peak: saved for backward, transient, the batch itself.
        workspace: what the device's libraries hold from the first step on.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int = 0

    @property
    def peak(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.workspace

    def to_dict(self) -> dict[str, int]:
        """Every part and the peak."""
        return {**asdict(self), "peak": self.peak}


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Bytes of tensor storage alive, and the most there ever were, while this mode is on.

    Views count once, with the storage they share. `block` rounds every storage up, as an allocator does.
    """

    def __init__(self, block: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.block = block
        self.now = 0
        self.peak = 0
        self._alive: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, then count what it made."""
        result = func(*args, **(kwargs or {}))
        for leaf in result if isinstance(result, (tuple, list)) else (result,):
            for tensor in (leaf,) if isinstance(leaf, torch.Tensor) else tree_leaves(leaf):
                if isinstance(tensor, torch.Tensor):
                    self.count(tensor)
        return result

    def count(self, tensor: torch.Tensor) -> int:
        """Count a tensor's storage from now until its release; returns what it added."""
        if tensor.device.type == "meta":
            return 0
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return 0
        size = int(-(-storage.nbytes() // self.block) * self.block)
        self._alive[key] = weakref.finalize(storage, self._release, key, size)
        self.now += size
        self.peak = max(self.peak, self.now)
        return size

    def stop(self) -> None:
        """Forget every storage still alive."""
        for finalizer in self._alive.values():
            finalizer.detach()
        self._alive.clear()

    def _release(self, key: int, size: int) -> None:
        del self._alive[key]
        self.now -= size


def predict(
    module: nn.Module,
    make_step: Callable[[nn.Module], Callable[[Mapping[str, torch.Tensor]], object]],
    shapes: Mapping[str, tuple[int, ...]],
    device: str = "cpu",
) -> MemoryEstimate:
    """Predict the peak of a training step, without data, weights or the device.

    Args:
        module: on the meta device, with gradients required as for training; afterwards its tensors are fake.
        make_step: given the module, makes its optimiser and returns the step, which takes a batch.
        shapes: of the batch's int64 tensors, by name; `attention_mask` may be among them.
        device: whose allocator to account for.
    """
    block, workspace = (CUDA_BLOCK, CUDA_WORKSPACE) if device == "cuda" else (1, 0)
    live = LiveBytes(block)
    with FakeTensorMode(allow_non_fake_inputs=True), live:
        _materialise(module, lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
        weights = live.now
        batch = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}
        step = make_step(module)
        idle = live.now
        step(batch)
        optimizer = live.now - idle
        live.peak = live.now
        step(batch)  # now with the optimiser's state, as every step but the first
    gradients = sum(-(-p.numel() * p.element_size() // block) * block for p in module.parameters() if p.requires_grad)
    live.stop()
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=max(0, live.peak - weights - gradients - optimizer),
        workspace=workspace,
    )


def measure(step: Callable[[], object], module: nn.Module, device: str = "cpu") -> int:
    """Peak bytes while `step`, a real training step on `module`, runs twice: the second has the optimiser's state."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated())
    with LiveBytes() as live:
        for tensor in (*module.parameters(), *module.buffers()):
            live.count(tensor)
        step()
        step()
    live.stop()
    return int(live.peak)


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
