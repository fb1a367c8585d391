"""What a candidate uses of each limit: parameters, bytes, and the time of its trial."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.budget.memory.peak import MemoryEstimate
    from autopeft.training.batch_plan import Execution


@dataclass(frozen=True)
class Weights:
    """What a candidate's model shows without weights and without a step.

    Attributes:
        saved_params: parameters a saved add-on holds; a reparameterized prefix trains far more than it saves.
        saved_bytes: size of the file that holds them.
        least_memory: bytes that a step needs however its batch is run.
    """

    saved_params: int
    saved_bytes: int
    least_memory: int


@dataclass(frozen=True)
class Usage:
    """What a candidate needs; computed on request, since each part costs more than the one before.

    Attributes:
        trainable_params: parameters that training changes, the head included.
        measure_saved: computes `weights`.
        fit_memory: computes `execution` and `memory`.
        needs: the needs computed so far, by the limits' measures.
    """

    trainable_params: int
    measure_saved: Callable[[], Weights]
    fit_memory: Callable[[], tuple[Execution, MemoryEstimate]]
    needs: dict[str, float] = field(default_factory=dict, compare=False)

    def __getstate__(self) -> dict[str, object]:
        """For another process: with what is known, without the functions that compute the rest."""
        return {**vars(self), "measure_saved": None, "fit_memory": None}

    @functools.cached_property
    def weights(self) -> Weights:
        """What it holds and saves."""
        return self.measure_saved()

    @property
    def weights_known(self) -> bool:
        """Whether `weights` has been computed."""
        return "weights" in vars(self)

    @functools.cached_property
    def _fit(self) -> tuple[Execution, MemoryEstimate]:
        return self.fit_memory()

    @property
    def execution(self) -> Execution:
        """How a batch is run: the fastest way that fits, or the smallest if none fits."""
        return self._fit[0]

    @property
    def memory(self) -> MemoryEstimate:
        """Predicted peak memory of a training step run in this way."""
        return self._fit[1]

    @property
    def memory_known(self) -> bool:
        """Whether `memory` has been computed."""
        return "_fit" in vars(self)
