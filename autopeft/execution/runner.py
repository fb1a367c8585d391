"""Takes each candidate from admission to its outcome, and reports to a job on the way.

It uses no store and no screen, so it works the same in the study's own process and in a worker.
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
from autopeft.study.states import ELSEWHERE, FAIL, INFEASIBLE, INTERRUPTED
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
        packing: how the folds of each method run, as `PackingChoice` decided.
        excess: bytes that steps of a method took above the prediction, as its trials found out.
    """

    packing: Mapping[str, str]
    excess: Mapping[str, int]


class Job(Protocol):
    """A trial that gets reports on its progress."""

    def estimated(self, usage: Usage) -> None:
        """What the candidate needs, and whether that is within the budget, is known."""

    def settled(self, packing: Mapping[str, str]) -> None:
        """It was decided how the folds of the candidate's method run."""

    def started(self, usage: Usage) -> None:
        """The candidate was admitted, is about to train and will need this much."""

    def rung(self, rung: Rung) -> str | None:
        """All folds reached a rung; returns the reason to stop the trial there, if any."""


class Runner:
    """Runs the trials of a problem.

    Args:
        problem: the study's.
        say: gets sentences for the user.
        known: what it need not find out again.
        leak_check: finds tensors that a method keeps after its trial.

    Attributes:
        most_memory: bytes that a step may take in the worker with the largest share of memory, if there are others.
    """

    most_memory = 0.0

    def __init__(self, problem: Problem, say: Callable[[str], None], known: Findings, leak_check: LeakCheck) -> None:
        self._problem, self._leak_check = problem, leak_check
        self._packers = {one.label: PackingChoice(one, by_host(say)) for one in problem.each}
        self.learn(known)

    def learn(self, known: Findings) -> None:
        """Take over what others have found out since."""
        for one in self._problem.each:
            self._packers[one.label].adopt(one.own(known.packing))
            for method, excess in one.own(known.excess).items():
                one.cost_estimator.learn(method, excess)

    def __call__(self, candidate: Candidate, job: Job) -> Outcome:
        """Run one trial to its outcome: INTERRUPTED if the machine failed, ELSEWHERE if another worker may have room.

        Raises:
            StudyError: an earlier trial damaged the base model for good.
            StreamError: nobody reads the output anymore.
        """
        usage = self.admit(candidate, job)
        if isinstance(usage, Outcome):
            return usage

        def work() -> Outcome:
            found = self.settle(candidate, usage, job)
            if isinstance(found, Outcome):
                return found
            job.started(found)
            return self.train(candidate, job)

        return self.checked(candidate, work)

    def admit(self, candidate: Candidate, job: Job) -> Usage | Outcome:
        """What the candidate needs, which the job is told; or the outcome, if it must not train.

        Raises:
            StudyError: an earlier trial damaged the base model for good.
        """
        problem = self._problem.at_hand(candidate)
        if problem is not self._problem and problem.device.type == "cuda":
            self._leak_check.since()  # a model that was moved is not a leak
        problem.weight_check.check()
        try:
            return self._admit(problem, candidate, job)
        except MachineError as error:
            return Outcome(INTERRUPTED, error.fault)

    def checked(self, candidate: Candidate, work: Callable[[], Outcome]) -> Outcome:
        """The outcome of `work` on a candidate, `unharmed`, with what it left in memory."""
        try:
            outcome = work()
        except MachineError as error:
            outcome = Outcome(INTERRUPTED, error.fault)
        return replace(self.unharmed(candidate, outcome), leaked=self._leak_check.since())

    def unharmed(self, candidate: Candidate, outcome: Outcome) -> Outcome:
        """The outcome, but FAIL if the base model's weights have changed; they are restored."""
        if changed := self._problem.of(candidate).weight_check.restore():
            return replace(outcome, state=FAIL, reason=wrote(changed))
        return outcome

    @unguarded()
    def _admit(self, problem: Problem, candidate: Candidate, job: Job) -> Usage | Outcome:
        """What the candidate needs, or why it must not train."""
        try:
            with guarded(problem.spec.search.hang_timeout):
                usage = problem.cost_estimator(candidate)
                refusal = problem.budget.reason(usage)
                elsewhere = problem.budget.lacks_memory(usage, self.most_memory)
        except Exception as error:  # a method may do anything
            return Outcome(FAIL, in_a_line(error))
        if elsewhere:
            return Outcome(ELSEWHERE, refusal)
        job.estimated(usage)
        return Outcome(INFEASIBLE, refusal) if refusal else usage

    @unguarded()
    def settle(self, candidate: Candidate, usage: Usage, job: Job) -> Usage | Outcome:
        """Decide how the folds of the candidate's method run; returns what it then needs, or FAIL."""
        problem = self._problem.of(candidate)
        packer = self._packers[problem.label]
        try:
            with guarded(problem.spec.search.hang_timeout):
                settled = packer.decide(candidate)
                if settled:
                    usage = problem.cost_estimator(candidate)
                # Computed here, where it can be: the job may be in another process.
                _ = usage.weights, usage.memory, problem.budget.violations(usage)
        except Exception as error:
            return Outcome(FAIL, in_a_line(error))
        if settled:
            job.settled({arm(name, problem.label): way for name, way in packer.settled.items()})
        return usage

    def train(self, candidate: Candidate, job: Job) -> Outcome:
        """Train an admitted candidate, from its checkpoint if there is one."""
        problem = self._problem.of(candidate)
        return run_trial(problem, candidate, job.rung, Checkpoint.of(problem.spec.output, candidate.flat))


def wrote(changed: Sequence[str]) -> str:
    """Why a trial fails if its method changed these weights of the base model."""
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f"the method changed weights of the base model, which all trials share: {changed[0]}{more}"
