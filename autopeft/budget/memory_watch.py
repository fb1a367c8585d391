"""Keep a trial within the memory budget while it trains, and measure what it really takes.

On a GPU the allocator itself refuses more than the limit. On a CPU no allocator does, so steps that can set a new peak
run under a meter that refuses in the same way: a study there behaves as on a GPU of that size.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import torch

from autopeft.budget.limits import MEMORY
from autopeft.budget.memory import gpu
from autopeft.budget.memory.live_bytes import LiveBytes
from autopeft.common import machine
from autopeft.common.exceptions import OverBudgetError
from autopeft.common.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from autopeft.training.cohort import Cohort
    from autopeft.training.learner import Learner, Watch

ALWAYS_METERED = 3
"""First steps of a trial that are metered whatever their size: they create the optimiser's state."""


class Meter(LiveBytes):  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
    """Live bytes with a limit that no operation may exceed."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.now, self.peak = limit, 0, 0

    def count(self, tensor: torch.Tensor) -> int:
        """Count a tensor's storage.

        Raises:
            OverBudgetError: more is alive now than the limit allows.
        """
        known = len(self._history)
        number = super().count(tensor)
        if len(self._history) > known:
            self.now += self._history[-1][1]
            self.peak = max(self.peak, self.now)
        if self.now > self.limit:
            raise OverBudgetError(_over(self.now, self.limit))
        return number

    def _release(self, address: int, size: int) -> None:
        super()._release(address, size)
        self.now -= size


class MemoryWatch:
    """Watches the steps of a trial; give it to a `Learner`.

    Attributes:
        peak: bytes at the highest point seen so far.
    """

    def __init__(self, limit: int | None, device: str) -> None:
        self.limit, self.device = limit, device
        self.peak = self._steps = self._largest = 0

    @contextmanager
    def __call__(self, learner: Learner | Cohort, tokens: int) -> Iterator[None]:
        """Run one step of `learner`, whose largest pass has this many `tokens`.

        Raises:
            OverBudgetError: on a CPU, if the step needs more than the limit.
        """
        self._steps += 1
        record = tokens > self._largest or self._steps <= ALWAYS_METERED
        self._largest = max(self._largest, tokens)
        if self.device == "cuda" or self.limit is None or not record:
            yield
            return
        with Meter(self.limit) as meter:
            try:
                for tensor in (*learner.model.parameters(), *learner.model.buffers(), *learner.kept_tensors()):
                    meter.count(tensor)
                yield
            finally:
                self.peak = max(self.peak, meter.peak)

    def ran_out(self) -> None:
        """Note that memory ran out in a step. On a GPU its need is unknown, except that it is over the limit."""
        if self.device == "cuda":
            self.peak = max(self.peak, gpu.taken() if self.limit is None else self.limit + 1)

    def note(self, peak: int) -> None:
        """Note a peak that was measured elsewhere.

        Raises:
            OverBudgetError: it is over the limit.
        """
        self.peak = max(self.peak, peak)
        if self.limit is not None and peak > self.limit:
            raise OverBudgetError(_over(peak, self.limit))


def together(*watches: Watch) -> Watch:
    """Several watches as one."""

    @contextmanager
    def watch(learner: Learner, tokens: int) -> Iterator[None]:
        with ExitStack() as stack:
            for one in watches:
                stack.enter_context(one(learner, tokens))
            yield

    return watch


def cap(limit: int | None) -> None:
    """Enforce the limit on the current GPU, if there is one: its allocator then refuses more. None lifts it.

    The allocator gets what the driver does not take for the process.
    """
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        left = max(0, limit - gpu.context()) if limit else total
        torch.cuda.set_per_process_memory_fraction(min(1.0, (left + 1) / total))  # PyTorch rounds down to bytes


@contextmanager
def capped(limit: int | None) -> Iterator[None]:
    """Enforce the limit inside, and lift it afterwards: the process may have more to do than a study."""
    cap(limit)
    try:
        yield
    finally:
        cap(None)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: the budget's, a GPU's or the machine's."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or machine.out_of_memory(error)


def release_memory() -> None:
    """Free what a trial held: reference cycles in modules first, then cuBLAS's workspaces and the CUDA cache.

    The C library keeps freed memory between pieces still in use; `malloc_trim` makes it return that too.
    """
    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()


def _over(need: int, limit: int) -> str:
    return f"a step needed {format_bytes(need)} or more, over {MEMORY.named(limit)}"
