"""The limits of a study, and by how much a candidate breaks them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.common.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.budget.usage import Usage


@dataclass(frozen=True)
class Budget:
    """Hard limits; None is no limit. Parameters are counted, memory and saved size are in bytes.

    `max_gpu_memory` is what one trial may take: of the study's limit, `shared_gpu_memory`, the share of one of so many
    `workers`.
    """

    max_trainable_params: int | None = None
    max_gpu_memory: int | None = None
    max_saved_size: int | None = None
    max_trial_seconds: float | None = None
    workers: int = 1
    shared_gpu_memory: int | None = None

    def violations(self, usage: Usage, *, measured_saved: bool = False, every: bool = False) -> dict[str, float]:
        """How far each limit is exceeded, as a share of it: `used / limit - 1`, at most 0 where it holds.

        This is the form Optuna's constraints take, and normalised so that no unit outweighs another. Each limit takes
        more to tell than the one before, so it is left out where an earlier one is broken already, unless the saved
        size is asked for (`measured_saved`) or `every` limit is. Time cannot be told before the first steps: see
        `seconds_violation`.
        """
        found: dict[str, float] = {}

        def asked() -> bool:
            return every or max(found.values(), default=0) <= 0

        if self.max_trainable_params is not None:
            found["max_trainable_params"] = usage.trainable_params / self.max_trainable_params - 1
        if self.max_saved_size is not None and (measured_saved or asked()):
            found["max_saved_size"] = usage.weights.saved_bytes / self.max_saved_size - 1
        if self.max_gpu_memory is not None and asked():
            need = usage.memory.peak if every else self._memory(usage)
            found["max_gpu_memory"] = need / self.max_gpu_memory - 1
        return found

    def _memory(self, usage: Usage) -> int:
        """The predicted peak; or, where nobody has asked for it yet and it cannot matter, the least it can be."""
        hopeless = not usage.memory_known and usage.weights.least_memory > (self.max_gpu_memory or math.inf)
        return usage.weights.least_memory if hopeless else usage.memory.peak

    def admits(self, usage: Usage) -> bool:
        """Whether every limit that can be told before training holds."""
        return all(violation <= 0 for violation in self.violations(usage).values())

    def reason(self, usage: Usage) -> str:
        """The first limit that `usage` breaks, as a sentence; empty where it breaks none."""
        broken = {name for name, violation in self.violations(usage).items() if violation > 0}
        if "max_trainable_params" in broken:
            return f"trains {usage.trainable_params:,} parameters, over {self.named('max_trainable_params')}"
        if "max_saved_size" in broken:
            return f"weighs {format_bytes(usage.weights.saved_bytes)} when saved, over {self.named('max_saved_size')}"
        if "max_gpu_memory" in broken:
            need = self._memory(usage)
            least = "" if usage.memory_known else "at least "
            return f"needs {least}{format_bytes(need)} at its peak, over {self.named('max_gpu_memory')}"
        return ""

    def seconds_violation(self, predicted: float) -> float | None:
        """How far a trial of `predicted` seconds exceeds `max_trial_seconds`, as `violations` says it; None: no limit.

        `predict_seconds` gives the seconds, once the first steps have been timed.
        """
        return None if self.max_trial_seconds is None else predicted / self.max_trial_seconds - 1

    def seconds_reason(self, predicted: float) -> str:
        """The sentence for a trial of `predicted` seconds; empty where the limit holds."""
        if (self.seconds_violation(predicted) or 0.0) <= 0:
            return ""
        return f"would take {format_seconds(predicted)}, over {self.named('max_trial_seconds')}"

    @property
    def limits(self) -> dict[str, str]:
        """The limits that are set, name → "name = value", as a person reads them."""
        return {name: self.named(name) for name in LIMITS if getattr(self, name) is not None}

    def named(self, limit: str) -> str:
        """A limit as a person reads it, such as "max_gpu_memory = 2.0 GiB"."""
        value, write = getattr(self, limit), LIMITS[limit]
        if limit == "max_gpu_memory" and self.workers > 1:
            whole = self.shared_gpu_memory or value * self.workers
            return f"{limit} = {write(value)} ({write(whole)} shared by {self.workers} workers)"
        return f"{limit} = {write(value)}"


LIMITS: dict[str, Callable[[float], str]] = {
    "max_trainable_params": "{:,}".format,
    "max_saved_size": format_bytes,
    "max_gpu_memory": format_bytes,
    "max_trial_seconds": format_seconds,
}
"""Every limit, with how its value is written."""


def predict_seconds(per_step: float, steps_to_come: float, spent: float = 0.0) -> float:
    """Wall time of a whole trial, from its first steps.

    Args:
        per_step: seconds of a step, as its first ones had it.
        steps_to_come: steps of every fold and epoch that remain, and what else counts as so many.
        spent: seconds since the trial began.
    """
    return spent + per_step * steps_to_come
