"""One trial of a search, in Optuna, in MLflow and on the screen."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from optuna.trial import TrialState

from autopeft.budget.limits import SECONDS, extra_needs
from autopeft.common.exceptions import MachineError
from autopeft.execution.outcome import Outcome
from autopeft.reporting.short_name import short_name
from autopeft.search import choosing, retrying
from autopeft.search.protection import protected
from autopeft.search.recovery import tell
from autopeft.search.rung_scores import RungScores
from autopeft.study.record import RECORD, TrialRecord, plain, records
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, INTERRUPTED, TIMED_OUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import optuna

    from autopeft.budget.limits import Budget
    from autopeft.budget.usage import Usage
    from autopeft.common.interrupt import Interrupt
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.reporting.progress import Progress
    from autopeft.study.storage import StudyStorage
    from autopeft.tracking import Tracker, TrialRun
    from autopeft.training.rungs import Rung


PACKING = "packing"
"""The user attribute of a study that holds what `PackingChoice` decided."""


class Loop(Protocol):
    """What a trial needs from its search."""

    problem: Problem
    study: optuna.Study
    storage: StudyStorage
    tracker: Tracker
    progress: Progress
    interrupt: Interrupt
    wanted: int
    running: dict[int, Trial]
    fixed: list[Candidate]

    def done(self) -> int:
        """The number of trials that count."""

    def late(self) -> bool:
        """Whether the search's time is up."""

    def ended(self, record: TrialRecord) -> None:
        """Decide after a trial whether more make sense."""


class Trial:
    """One trial as recorded in Optuna, in MLflow and on the screen. It is the `Job` of whoever runs it.

    Attributes:
        candidate: what is run.
        number: Optuna's number.
        trains: whether it was admitted and has started.
    """

    def __init__(self, search: Loop, drawn: optuna.Trial, candidate: Candidate, asked: float) -> None:
        self._search, self._drawn, self._asked = search, drawn, asked
        self.candidate, self.number = candidate, drawn.number
        self._usage: Usage | None = None
        self._run: TrialRun | None = None
        self.trains = False

    def estimated(self, usage: Usage) -> None:
        """Tell the sampler how far inside or outside the budget the candidate is."""
        self._usage = usage
        for name, violation in self._budget.violations(usage).items():
            self._drawn.set_constraint(name, violation)

    def settled(self, packing: Mapping[str, str]) -> None:
        """Keep the decisions for the next start; if two workers decided on a method, the first one counts."""
        study = self._search.study
        study.set_user_attr(PACKING, {**packing, **study.user_attrs.get(PACKING, {})})

    def started(self, usage: Usage) -> None:
        """Record the start everywhere."""
        self._usage, search = usage, self._search
        search.tracker.outbox.release()
        search.storage.keep(search.study.study_name, self.number)
        self._open_run()
        before = search.done() + sum(trial.trains for trial in search.running.values())
        self.trains = True
        search.progress.started(self.number, self.candidate, usage, self._budget, before, search.wanted)

    def rung(self, rung: Rung) -> str | None:
        """Log the rung and ask the pruner, also about defaults, so that it can compare with them; see `protected`."""
        search, trial = self._search, self._drawn
        search.interrupt.check()
        trial.report(rung.mean, rung.number)
        self._open_run().log_rung(rung.number, rung.scores, rung.mean, loss=rung.loss, epoch=rung.epoch)
        search.progress.rung(self.number, rung)
        if search.late():
            return TIMED_OUT
        if not trial.should_prune() or protected(trial, self.candidate, search.problem.space, search.fixed):
            return None
        best, epochs = RungScores.of(search.study).best(rung.number), self.candidate.hyper.epochs
        scored = f"scored {rung.mean:.4f} where the best so far had {best:.4f}"
        return f"pruned after epoch {rung.epoch:g} of {epochs}: {scored}"

    def end(self, outcome: Outcome) -> None:
        """Record the end and its outcome everywhere.

        Raises:
            StudyError: the search cannot go on after it.
        """
        if outcome.state == INTERRUPTED:
            self._machine_failed(outcome.reason)
            return
        del self._search.running[self.number]
        refused = not outcome.seconds  # only the asking took time
        if refused:
            outcome = replace(outcome, seconds=time.monotonic() - self._asked)
        record, problem, study = self._record(outcome), self._search.problem, self._search.study
        with self._search.storage.together():
            if not refused:
                self._constrain_time(outcome)
            self._drawn.set_user_attr(RECORD, plain(record))
            tell(study, self.number, record)
        choosing.tidy(problem, study, record, [other.candidate.flat for other in self._search.running.values()])
        self._close_run(record)
        self._search.ended(record)

    def lost(self, why: str, *, machine: bool = False, asked: bool = False) -> None:
        """Handle the death of its process: the trial runs again from where it was; the second time, it has failed.

        Args:
            why: in words.
            machine: whether the machine may be at fault: then a later start tries again.
            asked: whether the process was told to end; such a death does not count.

        Raises:
            StudyError: it failed, and the search cannot go on after it.
        """
        earlier = self._drawn.user_attrs.get(retrying.WHY, INTERRUPTED)
        if asked or earlier != retrying.WORKER_DIED:
            self._put_back(why, earlier if asked else retrying.WORKER_DIED, self._faults)
        else:
            self._fail(f"{why}, for the second time", machine)

    def _machine_failed(self, why: str) -> None:
        """Have a later start run it again from where it was; if a trial was given up for that before, it has failed.

        Raises:
            MachineError: the machine must be fixed before the study goes on.
        """
        given_up = any(record.machine for record in records(self._search.study))
        if self._faults < retrying.MOST_FAULTS and not given_up:
            self._put_back(why, retrying.MACHINE, self._faults + 1)
            raise MachineError(f"trial {self.number} ({self.candidate}) could not go on: {why}")
        self._fail(why + f" (it was tried {self._faults + 1} times)" * bool(self._faults), machine=True)

    @property
    def _budget(self) -> Budget:
        return self._search.problem.of(self.candidate).budget

    @property
    def _faults(self) -> int:
        return retrying.faults(self._search.study, self.number)

    def _fail(self, why: str, machine: bool) -> None:
        self.end(Outcome(FAIL, why, seconds=time.monotonic() - self._asked, machine=machine))

    def _put_back(self, why: str, kind: str, faults: int) -> None:
        """Queue it again instead of ending it."""
        del self._search.running[self.number]
        retrying.run_again(self._search.study, self.number, self._drawn.params, kind, faults)
        self._search.study.tell(self._drawn, state=TrialState.FAIL)
        if self._usage:
            self._close_run(self._record(Outcome(INTERRUPTED, why, seconds=time.monotonic() - self._asked)))

    def _record(self, outcome: Outcome) -> TrialRecord:
        candidate = self.candidate
        flat, epochs = candidate.flat, candidate.hyper.epochs
        return replace(
            record_of(self.number, str(candidate), flat, epochs, self._usage, outcome), method=candidate.name
        )

    def _open_run(self) -> TrialRun:
        if self._run is None:
            name, flat = str(self.candidate), self.candidate.flat
            short = short_name(flat, name, self._search.problem.space.defaults)
            self._run = self._search.tracker.trial(self.number, name, flat, short)
        return self._run

    def _close_run(self, record: TrialRecord) -> None:
        self._open_run().finish(record.state, record.reason, record.metrics)
        self._search.progress.finished(record)

    def _constrain_time(self, outcome: Outcome) -> None:
        """Tell the sampler by how much the trial's time is over or under its limit, where that is known."""
        needed = max(outcome.needed_seconds or 0.0, outcome.seconds if outcome.state == INFEASIBLE else 0.0)
        violation = self._budget.seconds_violation(needed) if needed else None
        if violation is not None:  # a completed trial was in time, however narrowly
            violation = min(violation, 0.0) if outcome.state == COMPLETE else violation
            self._drawn.set_constraint(SECONDS.name, violation)


def record_of(
    number: int, name: str, params: dict[str, Any], epochs: int, usage: Usage | None, outcome: Outcome
) -> TrialRecord:
    """The record of a trial that has just ended; it has no usage if its method could not say what it needs."""
    fit = usage if usage and usage.memory_known else None
    kept = usage.weights if usage and usage.weights_known else None
    return TrialRecord(
        number=number,
        name=name,
        method=str(params["method"]),
        state=outcome.state,
        reason=outcome.why,
        score=outcome.score,
        fold_scores=outcome.rungs[-1].scores if outcome.rungs else (),
        curve=tuple(rung.mean for rung in outcome.rungs),
        epochs=epochs,
        rung_epochs=tuple(rung.epoch for rung in outcome.rungs),
        epochs_trained=outcome.rungs[-1].epoch if outcome.rungs else 0.0,
        trainable_params=usage.trainable_params if usage else None,
        saved_params=kept.saved_params if kept else None,
        predicted_memory=fit.memory.peak if fit else None,
        execution=str(outcome.execution or fit.execution) if fit else "",
        measured_memory=outcome.measured_memory,
        seconds=round(outcome.seconds, 3),
        params=params,
        saved_bytes=kept.saved_bytes if kept else None,
        unseen_memory=outcome.excess,
        leaked=outcome.leaked,
        collapsed=outcome.collapsed,
        fold_losses=outcome.losses,
        machine=outcome.machine,
        needs={limit.measure: need for limit, need in extra_needs(usage).items()} if usage else {},
        facts=dict(outcome.facts),
    )
