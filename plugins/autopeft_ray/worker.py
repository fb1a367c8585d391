"""An actor as the study's process sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autopeft import TrialHandle
    from autopeft_ray.actor import Place


@dataclass
class Worker:
    """An actor, the call that it has not replied to, and the trial that it runs.

    Attributes:
        actor: Ray's handle.
        call: what was called last, until its reply came.
        where: its node, once it has replied from there.
        ready: whether it has all it needs to train.
        job: the trial that it runs.
        unheard: seconds that the call has taken, while this process ran; until it is ready, those of all calls.
        doubted: when it could not be reached for the first time, on the monotonic clock.
    """

    actor: Any
    call: Any = None
    where: Place | None = None
    ready: bool = False
    job: TrialHandle | None = None
    unheard: float = 0.0
    doubted: float | None = None

    def ask(self, method: str, *given: Any) -> None:
        """Call a method of the actor."""
        self.call = getattr(self.actor, method).remote(*given)
        if self.ready:
            self.unheard = 0.0

    @property
    def name(self) -> str:
        """What people are told of it."""
        return f"the worker on node {self.where.address}" if self.where else "a worker"
