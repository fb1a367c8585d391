"""How a trial ended. Light to import, so that a report of many trials loads no model library."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autopeft.study.states import COMPLETE, PRUNED
from autopeft.training.collapse import COLLAPSED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.common.params import ParamValue
    from autopeft.training.batch_plan import Execution
    from autopeft.training.rungs import Rung


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: COMPLETE, PRUNED, STOPPED by the study's timeout, INFEASIBLE or FAIL; INTERRUPTED if it has not ended.
        reason: why it is not COMPLETE, as a sentence.
        rungs: where it stood at each rung.
        measured_memory: peak bytes of a real training step at the longest batch, or of a later one that took more;
            None if it never trained.
        seconds: wall time.
        needed_seconds: of the whole trial, predicted by its first steps or measured; None if neither is known.
        execution: how its batches were run, None if it never trained.
        excess: bytes that a step took above the prediction for the method, 0 if none.
        leaked: bytes of tensors that its method still held after the end.
        machine: whether the machine failed, and not the method: a later start tries again.
        facts: what its folds found out that answers need (`Task.calibrated`), if it is COMPLETE.
    """

    state: str
    reason: str = ""
    rungs: tuple[Rung, ...] = ()
    measured_memory: int | None = None
    seconds: float = 0.0
    needed_seconds: float | None = None
    execution: Execution | None = None
    excess: int = 0
    leaked: int = 0
    machine: bool = False
    facts: Mapping[str, ParamValue] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Mean fold score at the last rung."""
        return self.rungs[-1].mean if self.rungs else None

    @property
    def collapsed(self) -> int:
        """How many folds had collapsed at the last rung."""
        return self.rungs[-1].states.count(COLLAPSED) if self.rungs else 0

    @property
    def losses(self) -> tuple[float, ...]:
        """The training losses at the last rung, of the folds that had not collapsed."""
        if not self.rungs:
            return ()
        last = self.rungs[-1]
        return tuple(loss for loss, state in zip(last.losses, last.states, strict=False) if state != COLLAPSED)

    @property
    def why(self) -> str:
        """The reason, and how many folds collapsed; the reason of a failed trial is left as it is."""
        if not self.collapsed or self.state not in (COMPLETE, PRUNED):
            return self.reason
        told = f"{self.collapsed} of {len(self.rungs[-1].scores)} folds collapsed"
        return f"{self.reason}; {told}" if self.reason else told

    @property
    def kind_of_failure(self) -> str:
        """The reason without its numbers, which shows whether a fault repeats."""
        return re.sub(r"0x[\da-f]+|[\d.]+", "#", self.reason)
