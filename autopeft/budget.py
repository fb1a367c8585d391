"""The two budgets, and by how much a candidate breaks them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.execution import Execution
    from autopeft.memory import MemoryEstimate


@dataclass(frozen=True)
class Usage:
    """What a candidate needs.

    Attributes:
        trainable_params: parameters that training changes, the head included.
        saved_params: parameters a saved add-on holds; a reparameterized prefix trains far more than it saves.
        fit_memory: works out `execution` and `memory`; called only when somebody asks.
    """

    trainable_params: int
    saved_params: int
    fit_memory: Callable[[], tuple[Execution, MemoryEstimate]]

    @functools.cached_property
    def _fit(self) -> tuple[Execution, MemoryEstimate]:
        return self.fit_memory()

    @property
    def execution(self) -> Execution:
        """How a batch is run: the fastest way that fits, or the smallest where none does."""
        return self._fit[0]

    @property
    def memory(self) -> MemoryEstimate:
        """Predicted peak memory of a training step run that way."""
        return self._fit[1]

    @property
    def memory_known(self) -> bool:
        """Whether somebody has asked."""
        return "_fit" in vars(self)


@dataclass(frozen=True)
class Budget:
    """Hard limits; None is no limit. Parameters are counted, memory is in bytes."""

    max_trainable_params: int | None = None
    max_gpu_memory: int | None = None

    def violations(self, usage: Usage) -> dict[str, float]:
        """How far each limit is exceeded, as a share of it: `used / limit - 1`, at most 0 where it holds.

        This is the form Optuna's constraints take, and normalised so that no unit outweighs another. Memory costs
        more to predict than parameters to count, so it is left out where the parameters are over already.
        """
        found = {}
        if self.max_trainable_params is not None:
            found["max_trainable_params"] = usage.trainable_params / self.max_trainable_params - 1
        if self.max_gpu_memory is not None and max(found.values(), default=0) <= 0:
            found["max_gpu_memory"] = usage.memory.peak / self.max_gpu_memory - 1
        return found

    def admits(self, usage: Usage) -> bool:
        """Whether every limit holds."""
        return all(violation <= 0 for violation in self.violations(usage).values())

    def reason(self, usage: Usage) -> str:
        """The limit that `usage` breaks, as a sentence; empty where it breaks none."""
        broken = {name for name, violation in self.violations(usage).items() if violation > 0}
        if "max_trainable_params" in broken:
            return (
                f"trains {usage.trainable_params:,} parameters, "
                f"over max_trainable_params = {self.max_trainable_params:,}"
            )
        if "max_gpu_memory" in broken and self.max_gpu_memory is not None:
            need, limit = format_bytes(usage.memory.peak), format_bytes(self.max_gpu_memory)
            return f"needs {need} at its peak, over max_gpu_memory = {limit}"
        return ""
