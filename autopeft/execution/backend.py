"""The contract between a search and what runs its trials: this process, others beside it, or a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, Self

from autopeft.execution.runner import Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from autopeft.common.params import ParamValue
    from autopeft.execution.outcome import Outcome
    from autopeft.methods.candidate import Candidate


class TrialHandle(Job, Protocol):
    """A trial that was given to a backend; it is told about its progress and its end."""

    @property
    def candidate(self) -> Candidate:
        """The candidate to train."""

    def end(self, outcome: Outcome) -> None:
        """The trial ended."""

    def lost(self, why: str, *, machine: bool = False, asked: bool = False) -> None:
        """The process that ran it died, perhaps by a fault of the `machine`, or because somebody `asked` it to end."""


class Backend(ABC):
    """Runs trials. Use as a context manager: it leaves nothing running after the block.

    A search gives it trials while it is `free`, and calls `poll` while it is `busy`. It reports on a trial by the
    trial's own methods, in the process of the search: `estimated`, `settled`, `started`, `rung` (whose answer may stop
    it), and finally `end` or `lost`.

    ```python
    with backend:
        while True:
            while backend.free and (trial := search.ask(backend.alike)):
                backend.give(trial)
            if not backend.busy:
                break
            backend.poll()
    ```

    A backend without a machine to run a trial on:

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
        """Whether it has anything to wait for: a running trial, or its own preparation for one."""

    @property
    def alike(self) -> Mapping[str, ParamValue]:
        """Params that the next trial should have, to share a pass with those that run (`Candidate.alike`).

        Default: any. A trial with other params is taken too.
        """
        return {}

    @abstractmethod
    def give(self, trial: TrialHandle) -> None:
        """Run a trial to its end, or in the background."""

    @abstractmethod
    def poll(self) -> None:
        """Wait a moment at most for reports of trials in the background, and pass them on.

        Raises:
            StudyError: no more trials can be run.
        """

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what still runs; at once if there was an error."""
