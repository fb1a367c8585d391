"""Takes one candidate after another from admission to its outcome, and tells a job how each fares.

It knows no store and no screen, so it works alike in the study's own process and in a worker's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from autopeft.checkpoint import Checkpoint
from autopeft.objective import run_trial
from autopeft.outcome import INFEASIBLE, Outcome
from autopeft.packer import Packer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from autopeft.budget import Usage
    from autopeft.candidate import Candidate
    from autopeft.problem import Problem
    from autopeft.rungs import Rung


@dataclass(frozen=True)
class Known:
    """What earlier trials of the study found out.

    Attributes:
        packing: how the folds of each method run, as `Packer` settled it.
        excess: a method, and by how many bytes one of its trials exceeded its prediction; as many as there were trials.
    """

    packing: Mapping[str, str]
    excess: Sequence[tuple[str, int]]


class Job(Protocol):
    """A trial, told how it fares."""

    def appraised(self, usage: Usage) -> None:
        """What the candidate needs is known, and whether it is within the budget."""

    def settled(self, packing: Mapping[str, str]) -> None:
        """The way the folds of the candidate's method run was found out."""

    def started(self, usage: Usage) -> None:
        """The candidate was admitted, is about to train and will need that much."""

    def rung(self, rung: Rung) -> str | None:
        """All folds reached a rung; returns the reason why the trial is to stop there, if it is."""


class Runner:
    """Runs the trials of a problem.

    Args:
        problem: the study's.
        say: told what is worth a sentence.
        known: what it need not find out.
    """

    def __init__(self, problem: Problem, say: Callable[[str], None], known: Known) -> None:
        self._problem = problem
        self._packer = Packer(problem, say, known.packing)
        for method, excess in known.excess:
            problem.appraiser.learn(method, excess)

    def learn(self, packing: Mapping[str, str]) -> None:
        """Take over what others settled since."""
        self._packer.adopt(packing)

    def __call__(self, candidate: Candidate, job: Job) -> Outcome:
        """Run one trial to its outcome."""
        problem = self._problem
        usage = problem.appraiser(candidate)
        refusal = problem.budget.reason(usage)
        job.appraised(usage)
        if refusal:
            return Outcome(INFEASIBLE, refusal)
        if self._packer.settle(candidate):
            job.settled(self._packer.settled)
            usage = problem.appraiser(candidate)
        usage.memory  # noqa: B018  # worked out here, where it can be: a job may be told in another process
        job.started(usage)
        return run_trial(problem, candidate, job.rung, Checkpoint.of(problem.spec.output, candidate.flat))
