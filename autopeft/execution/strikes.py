"""Which workers and GPUs go on failing, and which trials make them fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

MOST = 2
"""How often something may fail: a worker that died is replaced once, and a GPU that failed is tried once more."""


@dataclass(frozen=True)
class First:
    """The first death of a trial's process: on which GPU, if that may be at fault, and what it was counted against."""

    card: str
    counted: tuple[int | str, ...]


class Strikes:
    """Counts the deaths of workers against their places and GPUs, and takes those back that are a trial's own fault.

    A place is where a worker runs: its replacement has the same. A trial is at fault if its process dies a second time,
    unless both deaths may be the fault of one GPU, or somebody else ended the process.

    >>> strikes = Strikes()
    >>> strikes.died(0, "GPU 0", "a trial", at_card=True), strikes.died(1, "GPU 1", "a trial", at_card=True)
    (False, True)
    >>> strikes.died(0, "GPU 0", "another", at_card=True), strikes.out("GPU 0")
    (False, False)
    >>> strikes.died(0, "GPU 0", "a third one", at_card=True), strikes.out("GPU 0")
    (False, True)
    """

    def __init__(self) -> None:
        self._count: Counter[int | str] = Counter()
        self._first: dict[str, First] = {}

    def died(self, place: int, card: str, trial: str = "", *, at_card: bool = False, outside: bool = False) -> bool:
        """Count the death of a worker, and return whether its trial is at fault.

        Args:
            place: of the worker.
            card: its GPU.
            trial: what it ran, if anything.
            at_card: whether the GPU may be at fault.
            outside: whether the system or a person ended the process.
        """
        first = self._first.pop(trial, None)
        if first and not outside and not (at_card and first.card == card):
            for one in first.counted:
                self._count[one] = max(0, self._count[one] - 1)
            return True
        counted = (place, card) if at_card else (place,)
        self._count.update(counted)
        if trial and not first:
            self._first[trial] = First(card if at_card else "", counted)
        return False

    def ended(self, place: int, trial: str) -> None:
        """A worker brought a trial to its end: the place works."""
        self._count.pop(place, None)
        self._first.pop(trial, None)

    def suspect(self, trial: str) -> str:
        """The GPU that may have ended this trial's process before; empty if none."""
        first = self._first.get(trial)
        return first.card if first else ""

    def out(self, one: int | str) -> bool:
        """Whether a place or a GPU failed too often to be used again."""
        return self._count[one] >= MOST
