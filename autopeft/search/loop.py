"""The search: asks the sampler, has candidates run, here or in workers, keeps outcomes, and knows when to stop."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autopeft.common.exceptions import StudyError
from autopeft.common.units import format_bytes, format_seconds
from autopeft.execution.backend_factory import find_backend
from autopeft.execution.cohort_choice import together
from autopeft.execution.cohorts import Cohorts
from autopeft.execution.in_process import InProcess
from autopeft.execution.outcome import Outcome
from autopeft.execution.processes import Processes
from autopeft.execution.runner import Findings
from autopeft.execution.shares import side_by_side
from autopeft.execution.study_work import StudyWork
from autopeft.search import choosing, racing, retrying
from autopeft.search.endings import ANOTHER
from autopeft.search.recovery import recover
from autopeft.search.sampler import DRAWN, make_sampler
from autopeft.search.seen import Memory
from autopeft.search.start import fixed_defaults
from autopeft.search.tally import Tally
from autopeft.search.trial import PACKING, Trial
from autopeft.study.phase import SEARCHING
from autopeft.study.record import PASSED_OVER, STOPPED_EARLY, TrialRecord, records
from autopeft.study.sections import LOCAL_BACKEND
from autopeft.study.states import FAIL, INFEASIBLE
from autopeft.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import optuna

    from autopeft.common.interrupt import Interrupt
    from autopeft.common.params import ParamValue
    from autopeft.execution.backend import Backend
    from autopeft.execution.problem import Problem
    from autopeft.reporting.progress import Progress
    from autopeft.search.announcer import Announcer
    from autopeft.study.storage import StudyStorage
    from autopeft.tracking import Tracker

MAX_SAME_FAILURES = 3
MAX_FAILURES = 6
"""If a method's first trials all fail, for whatever reasons, it is left out after this many."""

MAX_LEAKS = 2
FIX = "Fix it and run the same command again: the trials that finished are kept."
MAX_REFUSED_IN_A_ROW = 200


class Search:
    """The loop over trials. It alone writes to the study's stores, however many workers train.

    With several workers, timing decides which trials have ended when the next one is drawn, and so what the sampler
    draws and the pruner stops. So two runs of the same study differ, which they do not with one worker.

    Attributes:
        left_out: methods that the search goes on without, each with the reason.
        fixed: the best fixed default of each base model, which is never pruned.
        deadline, end: when the search, and the race that follows it, must end, on the monotonic clock; None for never.
    """

    def __init__(
        self,
        problem: Problem,
        study: optuna.Study,
        storage: StudyStorage,
        tracker: Tracker,
        progress: Progress,
        interrupt: Interrupt,
    ) -> None:
        self.problem, self.study, self.storage = problem, study, storage
        self.tracker, self.progress, self.interrupt = tracker, progress, interrupt
        self.wanted = problem.spec.search.trials
        self.running: dict[int, Trial] = {}
        self.fixed = fixed_defaults(problem.spec, problem.space, len(problem.rows.train))
        timeout = problem.spec.search.timeout
        began, part = time.monotonic(), 1 / (1 + racing.share(problem))
        self.end = began + timeout if timeout else None
        self.deadline = began + timeout * part if timeout else None
        self.left_out: dict[str, str] = {}
        self._ended: list[TrialRecord] = []  # in this start of the study: a plugin may have been fixed since the last
        self._refused, self._why = 0, ""
        self._tally: Tally | None = None
        self._memory = Memory()

    def run(self, announcer: Announcer) -> None:
        """Draw and train candidates until the wanted number of trials has ended, or time is up."""
        recover(self.study)
        retrying.retry(self.study)
        self._tally = None
        if self.done() < self.wanted:
            retrying.go_on(self.study)
            self._tally = None
            self.study.set_user_attr(STOPPED_EARLY, None)
            self.study.set_user_attr(PASSED_OVER, {})  # the winner is selected anew
        self._clear_checkpoints()
        self.progress.begun(self.wanted, self.problem.space.defaults, self.deadline)
        if self.done() < self.wanted:
            limit = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
            announcer.enter(SEARCHING, seconds=limit, latest=True)
        elsewhere = self.problem.spec.search.backend != LOCAL_BACKEND
        with self.problem.off_the_card() if elsewhere else nullcontext(), self._backend() as backend:
            while True:
                while backend.free and (trial := self.ask(backend.alike)):
                    backend.give(trial)
                if not backend.busy:
                    break
                backend.poll()
                self.interrupt.check()
        self.tracker.outbox.release()
        known = self.known()
        for one in self.problem.each:
            for method, excess in one.own(known.excess).items():  # found by workers; the winner's refit needs it
                one.cost_estimator.learn(method, excess)
        self._note_end()
        self._clear_checkpoints()

    def _clear_checkpoints(self) -> None:
        """Remove the checkpoints of trials that will neither go on nor write."""
        kept = [*retrying.to_come(self.study), *choosing.awaited(self.problem, self.study)]
        Checkpoint.clear(self.problem.spec.output, kept)

    def _backend(self) -> Backend:
        """What runs the trials: a plugin's backend or other processes, if that is set and a trial is left."""
        left, search = self.wanted - self.done(), self.problem.spec.search
        if search.backend != LOCAL_BACKEND and left > 0:
            work = StudyWork(self.problem, left, self.known, self.progress.say)
            return find_backend(search.backend, self.problem.blocked).make(work)
        count = min(self.problem.workers, left)
        if self.problem.workers > 1 and count > 0:
            return Processes(self.problem, count, self.known, self.progress.say)
        if (most := together(self.problem)) > 1:
            return Cohorts(self.problem, most, self.known, self.progress.say)
        return InProcess(self.problem, self.known, self.progress.say)

    def known(self) -> Findings:
        """What the trials have found out so far, in this start and earlier ones."""
        return Findings(self.study.user_attrs.get(PACKING, {}), dict(self.tally.excess))

    def ask(self, alike: Mapping[str, ParamValue] | None = None) -> Trial | None:
        """The next trial; None where no more should start, or not before a running one has ended.

        If none is queued, it gets the params in `alike`.

        MLflow learns of refused proposals only when a trial trains: so a proposal costs half as much.
        """
        several = side_by_side(self.problem.spec, self.problem.workers) or together(self.problem) > 1
        if not several:
            self.tracker.outbox.hold()
        while True:
            self.interrupt.check()
            if self._why or self.done() + len(self.running) >= self.wanted or self.late():
                return None
            asked = time.monotonic()
            number = self.tally.ended + len(self.running)
            if alike and not any(t.state == TrialState.WAITING for t in self.study.get_trials(deepcopy=False)):
                self.study.enqueue_trial(dict(alike), user_attrs={DRAWN: True})
            spec, defaults = self.problem.spec, self.problem.space.defaults
            self.study.sampler = make_sampler(
                spec.seed,
                number,
                self.tally.drawn,
                defaults,
                side_by_side=several,
                name=spec.search.sampler,
                memory=self._memory,
            )
            drawn = self.study.ask()
            self.tally.started(drawn.number)
            trial = Trial(self, drawn, self.problem.space.suggest(drawn), asked)
            self.running[drawn.number] = trial
            name = trial.candidate.name
            if name not in self.left_out:
                return trial
            alike = None
            drawn.set_constraint("left_out", 1.0)  # the sampler cannot drop a method, but learns to keep away from it
            trial.end(Outcome(INFEASIBLE, f"{name} was left out"))

    def done(self) -> int:
        """The number of trials that count. A proposal over the budget does not: it was never trained."""
        return self.tally.counted

    @property
    def tally(self) -> Tally:
        """What the trials so far amount to."""
        if self._tally is None:
            self._tally = Tally(self.study)
        return self._tally

    def late(self) -> bool:
        """Whether the search's time is up: the study's time less the race's part."""
        return self.deadline is not None and time.monotonic() > self.deadline

    def over(self) -> bool:
        """Whether the study's time is up."""
        return self.end is not None and time.monotonic() > self.end

    def ended(self, record: TrialRecord) -> None:
        """Decide after a trial whether more make sense: with its method, and at all.

        Raises:
            StudyError: no method is left, or the last trials, each of another plugin, all failed for the same reason.
        """
        self.tally.add(record)
        self._refused = self._refused + 1 if record.state == INFEASIBLE else 0
        if self._refused == MAX_REFUSED_IN_A_ROW:
            self._stop(f"the budget refused the last {self._refused} proposals (the last one: {record.reason})")
        if record.state == INFEASIBLE or record.machine:
            return
        self._ended.append(record)
        recent = self._ended[-MAX_SAME_FAILURES:]
        plugins = {self.problem.origins[record.method] for record in recent}
        if len(plugins) == MAX_SAME_FAILURES and _failed_alike(recent):  # so it is not a plugin's fault
            raise StudyError(
                f"the last {MAX_SAME_FAILURES} trials all failed for the same reason: {recent[-1].reason} "
                f"(the last one was {recent[-1].name}). {FIX}"
            )
        self._judge(record)

    def _judge(self, record: TrialRecord) -> None:
        """Leave a trial's method out of the rest of the search if it keeps failing, or keeps tensors in memory."""
        name, origin = record.method, self.problem.origins[record.method]
        mine = [other for other in self._ended if other.method == name]
        leaks = sum(other.leaked > 0 for other in mine)
        if name in self.left_out:  # a worker's trial that ran meanwhile
            return
        if _failed_alike(mine):
            why = f"its {len(mine)} trials all failed for the same reason: {record.reason}"
        elif len(mine) == MAX_FAILURES and all(other.state == FAIL for other in mine):
            why = f"its {len(mine)} trials all failed, the last one for this reason: {record.reason}"
        elif record.leaked and leaks == MAX_LEAKS:
            why = f"it kept {format_bytes(record.leaked)} of tensors in memory after its trial, for the second time"
        else:
            if record.leaked:
                held = f"{format_bytes(record.leaked)} of tensors in memory after trial {record.number}"
                self.progress.say(f"{name} kept {held}; if it does so again, it is left out. Its plugin: {origin}.")
            return
        self.left_out[name] = why
        self.progress.say(f"{name} is left out of the rest of the search. {origin}: {why}")
        if set(self.left_out) == set(self.problem.space):
            reasons = "; ".join(f"{method}: {reason}" for method, reason in self.left_out.items())
            if not any(other.complete for other in records(self.study)):
                raise StudyError(f"no method is left to search. {reasons}. {FIX}")
            self._stop(f"no method is left ({reasons})")

    def _note_end(self) -> None:
        """If the search ended before the wanted number of trials, keep why and say so."""
        told, done = "", self.done()
        if done < self.wanted:
            how = f": {self._why}" if self._why else ""
            limit = self.problem.spec.search.timeout
            by = f" by the timeout of {format_seconds(limit)}" if limit and not how else ""
            told = f"stopped{by} after {done} of {self.wanted} trials{how}"
        if not self._why and told:
            self.progress.say(f"The search was {told}. Run the same command again to continue.")
        if self.study.user_attrs.get(STOPPED_EARLY) != told:
            self.study.set_user_attr(STOPPED_EARLY, told)

    def _stop(self, why: str) -> None:
        self._why = why
        self.progress.say(
            f"Stopped after {self.done()} of {self.wanted} trials: {why}. Fix what failed and run the same command "
            f"again; or raise a limit in [budget] or change the space in [search], and {ANOTHER}."
        )


def _failed_alike(found: Sequence[TrialRecord]) -> bool:
    """Whether enough of these trials failed for the same reason to expect the same of the next one."""
    if len(found) < MAX_SAME_FAILURES or any(record.state != FAIL for record in found):
        return False
    return len({Outcome(record.state, record.reason).kind_of_failure for record in found}) == 1
