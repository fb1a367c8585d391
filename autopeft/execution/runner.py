"""Takes one candidate after another from admission to its outcome, and tells a job how each fares.

It knows no store and no screen, so it works alike in the study's own process and in a worker's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from autopeft.common.containment import by_host, guarded, unguarded
from autopeft.common.exceptions import MachineError, in_a_line
from autopeft.common.model_names import arm
from autopeft.execution.outcome import Outcome
from autopeft.execution.packing_choice import PackingChoice
from autopeft.execution.run_trial import run_trial
from autopeft.study.states import FAIL, INFEASIBLE, INTERRUPTED
from autopeft.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from autopeft.budget.usage import Usage
    from autopeft.execution.leak_check import LeakCheck
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.training.rungs import Rung


@dataclass(frozen=True)
class Findings:
    """What earlier trials of the study found out.

    Attributes:
        packing: how the folds of each method run, as `PackingChoice` settled it.
        excess: bytes that steps of a method take on top of what is predicted, as its trials found out.
    """

    packing: Mapping[str, str]
    excess: Mapping[str, int]


class Job(Protocol):
    """A trial, told how it fares."""

    def estimated(self, usage: Usage) -> None:
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
        leak_check: finds what a method holds on to.
    """

    def __init__(self, problem: Problem, say: Callable[[str], None], known: Findings, leak_check: LeakCheck) -> None:
        self._problem, self._leak_check = problem, leak_check
        self._packers = {one.label: PackingChoice(one, by_host(say)) for one in problem.each}
        self.learn(known)

    def learn(self, known: Findings) -> None:
        """Take over what others found out since."""
        for one in self._problem.each:
            self._packers[one.label].adopt(one.own(known.packing))
            for method, excess in one.own(known.excess).items():
                one.cost_estimator.learn(method, excess)

    def __call__(self, candidate: Candidate, job: Job) -> Outcome:
        """Run one trial to its outcome, which is INTERRUPTED where the machine failed.

        Raises:
            StudyError: an earlier trial damaged the base model for good.
            StreamError: nobody reads the output any more.
        """
        problem = self._problem.at_hand(candidate)
        if problem is not self._problem and problem.device.type == "cuda":
            self._leak_check.since()  # a model that was moved is not a leak
        problem.weight_check.check()
        try:
            admitted = self._admit(problem, candidate, job)
        except MachineError as error:
            return Outcome(INTERRUPTED, error.fault)
        if isinstance(admitted, Outcome):
            return admitted
        try:
            outcome = self._train(problem, candidate, admitted, job)
        except MachineError as error:
            outcome = Outcome(INTERRUPTED, error.fault)
        if changed := problem.weight_check.restore():
            outcome = replace(outcome, state=FAIL, reason=wrote(changed))
        return replace(outcome, leaked=self._leak_check.since())

    @unguarded()
    def _admit(self, problem: Problem, candidate: Candidate, job: Job) -> Usage | Outcome:
        """What the candidate needs, or why it is not to train."""
        try:
            with guarded(problem.spec.search.hang_timeout):
                usage = problem.cost_estimator(candidate)
                refusal = problem.budget.reason(usage)
        except Exception as error:  # a method may do anything
            return Outcome(FAIL, in_a_line(error))
        job.estimated(usage)
        return Outcome(INFEASIBLE, refusal) if refusal else usage

    @unguarded()
    def _train(self, problem: Problem, candidate: Candidate, usage: Usage, job: Job) -> Outcome:
        packer = self._packers[problem.label]
        try:
            with guarded(problem.spec.search.hang_timeout):
                settled = packer.decide(candidate)
                if settled:
                    usage = problem.cost_estimator(candidate)
                # Worked out here, where it can be: a job may be told elsewhere.
                _ = usage.weights, usage.memory, problem.budget.violations(usage)
        except Exception as error:
            return Outcome(FAIL, in_a_line(error))
        if settled:
            job.settled({arm(name, problem.label): way for name, way in packer.settled.items()})
        job.started(usage)
        return run_trial(problem, candidate, job.rung, Checkpoint.of(problem.spec.output, candidate.flat))


def wrote(changed: Sequence[str]) -> str:
    """Why a trial fails whose method changed these weights of the base model."""
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"the method changed weights of the base model, which all trials share: {changed[0]}{more}"
