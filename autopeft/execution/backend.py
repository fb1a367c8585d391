"""The contract between a search and what runs its trials: this process, others beside it, or a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, Self

from autopeft.execution.runner import Job

if TYPE_CHECKING:
    from types import TracebackType

    from autopeft.execution.outcome import Outcome
    from autopeft.methods.candidate import Candidate


class TrialHandle(Job, Protocol):
    """A trial that was given to a backend, told how it fares and how it ended."""

    @property
    def candidate(self) -> Candidate:
        """What is to be trained."""

    def end(self, outcome: Outcome) -> None:
        """It ended."""

    def lost(self, why: str, *, machine: bool = False, asked: bool = False) -> None:
        """The process that ran it died: perhaps by the fault of the machine, or since somebody told it to end."""


class Backend(ABC):
    """Runs trials. Use as a context manager: nothing of it outlives the block.

    A search gives it trials as long as it is `free`, and calls `poll` while it is `busy`. All it learns of a trial goes
    to the trial's own methods, in the process of the search: `estimated`, `settled`, `started`, `rung` (whose answer
    may stop it), and in the end `end` or `lost`.

    ```python
    with backend:
        while True:
            while backend.free and (trial := search.ask()):
                backend.give(trial)
            if not backend.busy:
                break
            backend.poll()
    ```

    One that has no machine to run a trial on:

    >>> from types import SimpleNamespace
    >>> from autopeft.execution.outcome import Outcome
    >>> class Nowhere(Backend):
    ...     free, busy = True, False
    ...
    ...     def give(self, trial):
    ...         trial.end(Outcome("FAIL", "there is no machine"))
    ...
    ...     def poll(self): ...
    ...
    ...     def __exit__(self, *_): ...
    >>> with Nowhere() as backend:
    ...     backend.give(SimpleNamespace(end=lambda outcome: print(f"{outcome.state}: {outcome.reason}")))
    FAIL: there is no machine
    """

    @property
    @abstractmethod
    def free(self) -> bool:
        """Whether it takes another trial now."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether it has anything to wait for: a trial that runs, or something that makes it ready for one."""

    @abstractmethod
    def give(self, trial: TrialHandle) -> None:
        """Run a trial: to its end, or in the background."""

    @abstractmethod
    def poll(self) -> None:
        """Wait, for a moment at most, for what trials in the background have to tell, and pass it on.

        Raises:
            StudyError: no trial can be run any more.
        """

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs; where there was an error, at once."""
