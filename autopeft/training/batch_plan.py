"""How a batch goes through the model: all rows at once or a few at a time, and what is kept for the backward pass.

Batches of all folds may also go side by side (`autopeft.training.packing`). The rows of a batch, and so its gradient,
are always the same. Only peak memory and time change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

RECOMPUTING = {"cpu": 1.5, "cuda": 2.0}
"""Time of a checkpointed pass: forward, forward again and backward, each about as long if weights are frozen.

On a GPU, which waits for Python to start its kernels, the forward pass is most of it.
"""

PASS_OVERHEAD = {"cpu": 30, "cuda": 9000}
"""What starting a pass costs, in tokens that could be computed meanwhile (`benchmarks/execution.py`: a MiniLM on two
cores, and on an H100).

Constants, because a choice that depends on a timing could differ in the next run of the same study.
"""


@dataclass(frozen=True)
class Execution:
    """One way to run a batch.

    Attributes:
        micro_batch: rows of one forward and backward pass; gradients of the batch's passes add up.
        checkpointing: keep only the inputs of the transformer layers, and compute the rest again in the backward pass.
        folds: how many folds' batches share one pass; several need whole batches and no checkpointing.
        whole: whether a batch must not be cut into parts, since its loss compares its rows (`Task.contrasts`).
        candidates: how many share the pass, each with so many folds (`cohort`).
    """

    micro_batch: int
    checkpointing: bool = False
    folds: int = 1
    whole: bool = False
    candidates: int = 1

    def __str__(self) -> str:
        if self.candidates > 1:
            return f"batches of {self.micro_batch}, {self.folds} folds of {self.candidates} candidates at a time"
        if self.folds > 1:
            return f"batches of {self.micro_batch}, {self.folds} folds at a time"
        return f"micro-batches of {self.micro_batch}" + ", checkpointed layers" * self.checkpointing

    @property
    def slices(self) -> int:
        """How many batches share a pass: one for each fold of each candidate."""
        return self.folds * self.candidates

    def cost(self, batch_size: int, length: int, device: str) -> float:
        """Relative time of a batch of `batch_size` rows of `length` tokens."""
        passes = -(-batch_size // self.micro_batch)
        return (passes * PASS_OVERHEAD[device] + batch_size * length) * (
            RECOMPUTING[device] if self.checkpointing else 1.0
        )

    @property
    def smaller(self) -> Execution | None:
        """The next way that takes less memory; None if there is none."""
        if self.candidates > 1:
            return replace(self, candidates=1)
        if self.folds > 1:
            return replace(self, folds=1)
        if self.whole:
            return None if self.checkpointing else replace(self, checkpointing=True)
        if self.micro_batch > 1:
            return Execution(-(-self.micro_batch // 2), self.checkpointing)
        return None if self.checkpointing else Execution(1, checkpointing=True)


def ways(batch_size: int, length: int, device: str) -> list[Execution]:
    """Every way to run a batch, the fastest first; micro-batches are halved from the whole batch down to one row."""
    sizes = [batch_size]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    found = [Execution(size, checkpointing) for size in sizes for checkpointing in (False, True)]
    return sorted(found, key=lambda way: way.cost(batch_size, length, device))


def guess(way: Execution, known: Mapping[Execution, int]) -> float:
    """Estimate a way's peak in bytes from the `known` peaks of ways with the same checkpointing.

    It lies on the straight line through the two nearest, since activations grow with the rows of a pass and little else
    does. 0 if fewer than two are known.
    """
    alike = {other.micro_batch: peak for other, peak in known.items() if other.checkpointing == way.checkpointing}
    if len(alike) < 2:
        return 0.0
    few, many = sorted(sorted(alike, key=lambda rows: abs(math.log(rows / way.micro_batch)))[:2])
    return alike[few] + (alike[many] - alike[few]) * (way.micro_batch - few) / (many - few)
