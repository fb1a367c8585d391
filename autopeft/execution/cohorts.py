"""Trials in the process of the search, several candidates of one method in one pass."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from autopeft.common.exceptions import MachineError
from autopeft.execution.cohort_run import ALONE, FULL, CohortRun, PassError
from autopeft.execution.in_process import InProcess
from autopeft.execution.outcome import Outcome
from autopeft.study.states import INTERRUPTED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from autopeft.budget.usage import Usage
    from autopeft.common.params import ParamValue
    from autopeft.execution.backend import TrialHandle
    from autopeft.execution.cohort_run import Ended
    from autopeft.execution.problem import Problem
    from autopeft.execution.runner import Findings
    from autopeft.training.rungs import Rung

TURNS = 2
"""How many trials are drawn alike, as a multiple of those in one pass: then the sampler chooses freely again."""


class Cohorts(InProcess):
    """Runs trials that can share a pass side by side, and any other one to its end as it is given.

    Args:
        problem: the study's.
        most: trials at a time.
        known: returns what trials need not find out again.
        say: gets sentences for the user.
    """

    def __init__(self, problem: Problem, most: int, known: Callable[[], Findings], say: Callable[[str], None]) -> None:
        super().__init__(problem, known, say)
        self._most, self._told = most, set[str]()
        self._runs: deque[CohortRun] = deque()
        self._waiting: list[tuple[TrialHandle, Usage]] = []
        self._failed: list[Mapping[str, ParamValue]] = []  # what candidates have in common whose pass failed

    @property
    def free(self) -> bool:  # type: ignore[override]  # for one trial at a time it never changes
        """Whether there is room for another trial."""
        return not self._waiting and sum(len(run.entries) for run in self._runs) < self._most

    @property
    def busy(self) -> bool:  # type: ignore[override]  # likewise
        """Whether a trial runs or waits."""
        return bool(self._waiting or self._runs)

    @property
    def alike(self) -> Mapping[str, ParamValue]:
        """What trials have in common whose pass has room, until enough of them were drawn."""
        for run in self._runs:
            if run.joined < TURNS * self._most and run.wants:
                return run.first.alike
        return {}

    def give(self, trial: TrialHandle) -> None:
        """Let it share a pass, or run it to its end."""
        usage = self._runner.admit(trial.candidate, trial)
        if not isinstance(usage, Outcome):
            try:
                usage = self._runner.settle(trial.candidate, usage, trial)
            except MachineError as error:
                usage = Outcome(INTERRUPTED, error.fault)
        if isinstance(usage, Outcome):
            trial.end(usage)
        else:
            self._place(trial, usage)

    def poll(self) -> None:
        """Train the candidates of one pass until one of them reaches a rung."""
        if self._runs:
            self._advance(self._runs[0])
            self._runs.rotate(-1)
        waiting, self._waiting = self._waiting, []
        for trial, usage in waiting:
            self._place(trial, usage)

    def _place(self, trial: TrialHandle, usage: Usage) -> None:
        alike, problem = trial.candidate.alike, self._problem.at_hand(trial.candidate)
        if trial.candidate.method.unequal is None or alike in self._failed:
            trial.started(usage)
            self._alone(trial)
            return
        run = next((run for run in self._runs if run.first.alike == alike), None)
        if run is None:
            run = CohortRun(problem, trial.candidate, self._most)
            self._runs.append(run)
        refused = run.refused
        try:
            answer, ended = run.join(trial, usage)
        except MachineError as error:
            self._tidy(run)
            trial.end(Outcome(INTERRUPTED, error.fault))
            return
        if run.refused and not refused:
            self._tell(trial, "their gradients are not those that they have alone")
        if answer == FULL:
            self._waiting.append((trial, usage))
        elif answer == ALONE:
            self._tidy(run)
            trial.started(usage)
            self._alone(trial)
        self._end(run, ended)

    def _alone(self, trial: TrialHandle, told: int = 0) -> None:
        """Run a trial to its end, from its checkpoint; it knows of so many rungs."""
        self._leak_check.since()  # what the trials in passes hold is not its own
        job = _Told(trial, told)
        trial.end(self._runner.checked(trial.candidate, lambda: self._runner.train(trial.candidate, job)))

    def _advance(self, run: CohortRun) -> None:
        self._problem.at_hand(run.first)
        try:
            ended = run.advance()
        except PassError as error:
            self._tell(run.entries[0].trial, f"a step failed. {error}")
            self._failed.append(run.first.alike)
            left = run.drop(INTERRUPTED, str(error))
            self._tidy(run)
            for trial, outcome in left:
                self._alone(trial, len(outcome.rungs))
        except MachineError as error:
            left = run.drop(INTERRUPTED, error.fault)
            self._tidy(run)
            for trial, outcome in left:
                trial.end(outcome)
        else:
            self._end(run, ended)

    def _end(self, run: CohortRun, ended: Ended) -> None:
        """Tell trials of their ends; if the base model's weights have changed, all that used them have failed."""
        if ended and (checked := self._runner.unharmed(run.first, ended[0][1])) is not ended[0][1]:
            state, reason = checked.state, checked.reason
            ended = [(trial, replace(outcome, state=state, reason=reason)) for trial, outcome in ended]
            ended += run.drop(state, reason)
        self._tidy(run)
        if ended and not self._runs:  # nothing else is in memory
            ended[-1] = ended[-1][0], replace(ended[-1][1], leaked=self._leak_check.since())
        for trial, outcome in ended:
            trial.end(outcome)

    def _tidy(self, run: CohortRun) -> None:
        """Forget a pass that nobody uses."""
        if run in self._runs and not run.entries:
            run.drop(INTERRUPTED, "")
            self._runs.remove(run)

    def _tell(self, trial: TrialHandle, why: str) -> None:
        """Say once for each method that its candidates train alone."""
        name = trial.candidate.name
        if name not in self._told:
            self._told.add(name)
            self._say(f"Candidates of {name} train one after the other: when they share a pass, {why}.")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runs.clear()
        self._waiting.clear()
        super().__exit__(kind, error, trace)


class _Told:
    """A trial that knows of its first rungs already."""

    def __init__(self, trial: TrialHandle, known: int) -> None:
        self._trial, self._known = trial, known
        self.estimated, self.settled, self.started = trial.estimated, trial.settled, trial.started

    def rung(self, rung: Rung) -> str | None:
        """Pass on a rung that is new."""
        return None if rung.number <= self._known else self._trial.rung(rung)
