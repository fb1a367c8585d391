"""Trials of one kind that train in one pass: they join between two stretches of training, and leave at their rungs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from autopeft.budget.limits import MEMORY
from autopeft.budget.memory import gpu
from autopeft.budget.memory_watch import MemoryWatch, release_memory
from autopeft.budget.usage import Usage
from autopeft.common.containment import guarded, running_time, unguarded
from autopeft.common.exceptions import AutopeftError, SpecError, StoreError, in_a_line
from autopeft.execution.cohort_choice import fitting
from autopeft.execution.outcome import Outcome
from autopeft.execution.packing_choice import few_rows, gradients
from autopeft.execution.run_trial import calibrated
from autopeft.models.attach import attach, trainable
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, PRUNED, STOPPED, TIMED_OUT
from autopeft.training.checkpoint import Checkpoint
from autopeft.training.cohort import Cohort
from autopeft.training.cohort_check import agrees
from autopeft.training.cohort_member import Member
from autopeft.training.cross_validation import rows_of_epoch
from autopeft.training.initial_values import initial_values
from autopeft.training.learner import DIVERGED, Learner
from autopeft.training.packing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from torch import nn

    from autopeft.budget.memory.peak import MemoryEstimate
    from autopeft.common.params import ParamValue
    from autopeft.data.encoded import Encoded
    from autopeft.execution.backend import TrialHandle
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.training.batch import Batch
    from autopeft.training.batch_plan import Execution
    from autopeft.training.rungs import Rung

JOINED, FULL, ALONE = "joined", "full", "alone"
"""Answers to a trial that would join: it runs here; it may when another has left; it must train alone."""


@dataclass(eq=False)
class Entry:
    """A trial in a cohort.

    Attributes:
        trial, member: as the search sees it, and as it trains.
        usage: what it needs alone.
        execution: of the pass that it shares.
        checkpoint: its files.
        rungs: that the trial was told of.
        seconds: its share of the time that passes took.
    """

    trial: TrialHandle
    member: Member
    usage: Usage
    execution: Execution
    checkpoint: Checkpoint
    rungs: list[Rung] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def candidate(self) -> Candidate:
        """What it trains."""
        return self.trial.candidate

    def outcome(self, state: str, reason: str, peak: int, facts: Mapping[str, ParamValue] | None = None) -> Outcome:
        """How it ended, in passes that took `peak` bytes, 0 if that is not known."""
        part = self.rungs[-1].epoch / self.candidate.hyper.epochs if self.rungs else 0.0
        return Outcome(
            state,
            reason,
            tuple(self.rungs),
            measured_memory=peak or None,
            seconds=self.seconds,
            needed_seconds=self.seconds / part if part else None,
            execution=self.execution,
            facts=facts or {},
        )


Ended = list[tuple["TrialHandle", Outcome]]
"""Trials that ended, without what they held in memory."""


class PassError(AutopeftError):
    """A pass of several candidates failed."""


class CohortRun:
    """Trials whose candidates are `alike`, in one pass.

    Args:
        problem: of their base model.
        first: one of them.
        most: trials at a time, if memory allows it.

    Attributes:
        entries: the trials that run.
        joined: how many have run here so far.
        refused: whether one of them could not train here; then no more should be drawn for it.
    """

    def __init__(self, problem: Problem, first: Candidate, most: int) -> None:
        self._problem, self._most = problem, most
        self.first, self.entries, self.joined, self.refused = first, list[Entry](), 0, False
        self._watch = MemoryWatch(problem.budget.max_gpu_memory, problem.device.type)
        self._peak = 0
        self._cohort: Cohort | None = None
        self._passes: dict[str, tuple[Execution, MemoryEstimate] | None] = {}

    @property
    def wants(self) -> int:
        """How many more trials would fit now."""
        shared = self._shared([(entry.candidate, entry.usage) for entry in self.entries])
        return max(0, shared[0].candidates - len(self.entries)) if shared and not self.refused else 0

    @unguarded()
    def join(self, trial: TrialHandle, usage: Usage) -> tuple[str, Ended]:
        """Let a trial in, if it can train here; it goes on from its checkpoint, and may end at once.

        Raises:
            MachineError: the machine failed.
        """
        candidate, problem = trial.candidate, self._problem
        checkpoint = Checkpoint.of(problem.spec.output, candidate.flat)
        try:
            with guarded(problem.spec.search.hang_timeout):
                shared = self._shared([*((one.candidate, one.usage) for one in self.entries), (candidate, usage)])
                if not shared or not checkpoint.even(len(problem.folds)):
                    return ALONE, []
                if len(self.entries) >= shared[0].candidates:
                    return FULL, []
                member = self._member(candidate, shared[0], checkpoint)
                if member.ended or not self._admit(member):
                    self.refused = self.refused or not member.ended
                    return ALONE, []
        except Exception:  # whatever a method raises here, it raises again alone, and is told then
            self.refused = self.refused or bool(self.entries)
            return ALONE, []
        entry = Entry(trial, member, usage, shared[0], checkpoint)
        self.entries.append(entry)
        self.joined += 1
        trial.started(_shared_usage(usage, shared))
        ended: Ended = []
        for number in range(1, member.rung + 1):  # those before an interruption
            if outcome := self._told(entry, member.at(number)):
                ended.append(self._leave(entry, outcome))
                break
        return JOINED, ended

    @unguarded()
    def advance(self) -> Ended:
        """Train until a trial reaches a rung, and tell it of it; returns the trials that ended.

        Raises:
            PassError: the pass failed; each trial can go on alone from its checkpoint.
            StoreError: a checkpoint could not be written.
            SpecError: the user's own metric failed.
            MachineError: the machine failed.
        """
        started = running_time()
        try:
            with guarded(self._problem.spec.search.hang_timeout, memory=False), self._measured():
                reached, diverged = self._train()
        except (StoreError, SpecError):
            raise
        except Exception as error:
            raise PassError(in_a_line(error)) from error
        for entry in self.entries:
            entry.seconds += (running_time() - started) / len(self.entries)
        # All are told before any leaves: if the machine fails meanwhile, none is lost.
        told = [(entry, self._told(entry, rung, answers)) for entry, rung, answers in reached]
        failed = [(entry, entry.outcome(FAIL, DIVERGED, self._peak)) for entry in diverged]
        return [self._leave(entry, outcome) for entry, outcome in (*failed, *told) if outcome]

    def _train(self) -> tuple[list[tuple[Entry, Rung, list[np.ndarray]]], list[Entry]]:
        """Train to the next rung of any trial; returns those that reached one, and those whose loss is not finite."""
        cohort = self._cohort
        assert cohort is not None
        cohort.train(min(entry.member.to_rung for entry in self.entries))
        ready, diverged = list[Entry](), list[Entry]()
        for entry in self.entries:
            if entry.member.to_rung == 0:
                (ready if entry.member.finite else diverged).append(entry)
        answers = cohort.evaluate([entry.member for entry in ready]) if ready else []
        reached = [(entry, entry.member.reach(found), found) for entry, found in zip(ready, answers, strict=True)]
        for entry in ready:
            member = entry.member
            entry.checkpoint.keep(range(len(member.histories)), member.learner, member.histories)
        return reached, diverged

    def drop(self, state: str, reason: str) -> Ended:
        """Let all trials go, wherever they are in their training, with this outcome."""
        left = [(entry.trial, entry.outcome(state, reason, self._peak)) for entry in self.entries]
        self.entries.clear()
        self._cohort = None
        release_memory()
        return left

    def _told(self, entry: Entry, rung: Rung, answers: Sequence[np.ndarray] = ()) -> Outcome | None:
        """Tell a trial that it reached a rung; returns its outcome if it ends there."""
        entry.rungs.append(rung)
        reason = entry.trial.rung(rung)
        part = rung.epoch / entry.candidate.hyper.epochs
        if reason and part < 1:
            return entry.outcome(STOPPED if reason == TIMED_OUT else PRUNED, reason, self._peak)
        if slow := self._problem.budget.seconds_reason(entry.seconds / part):
            return entry.outcome(INFEASIBLE, slow, self._peak)
        return None if part < 1 else self._complete(entry, answers)

    def _complete(self, entry: Entry, answers: Sequence[np.ndarray]) -> Outcome:
        """How a trial ends that reached its last rung; if its task raises on its answers, only this trial fails."""
        problem = self._problem
        facts: Mapping[str, ParamValue] = {}
        try:
            with guarded(problem.spec.search.hang_timeout):
                if problem.task.calibrates and answers:
                    facts = calibrated(problem, dict(enumerate(answers)))
        except (StoreError, SpecError):
            raise
        except Exception as error:  # a task's plugin may raise anything
            return entry.outcome(FAIL, in_a_line(error), self._peak)
        return entry.outcome(COMPLETE, "", self._peak, facts)

    def _leave(self, entry: Entry, outcome: Outcome) -> tuple[TrialHandle, Outcome]:
        assert self._cohort is not None
        self.entries.remove(entry)
        self._cohort.leave(entry.member)
        return entry.trial, outcome

    def _shared(self, candidates: Sequence[tuple[Candidate, Usage]]) -> tuple[Execution, MemoryEstimate] | None:
        """The pass with room for the largest of these, and its memory; None if that one must train alone."""
        largest = max(candidates, key=lambda one: one[1].trainable_params, default=None)
        if largest is None:
            return None
        key = str(largest[0].flat)
        if key not in self._passes:
            self._passes[key] = fitting(self._problem, *largest, self._most)
        return self._passes[key]

    def _member(self, candidate: Candidate, shared: Execution, checkpoint: Checkpoint) -> Member:
        """The candidate as it begins, or as its checkpoint left it."""
        problem, folds = self._problem, self._problem.folds
        model, setup, execution = self._model(candidate), problem.setup(candidate), replace(shared, candidates=1)
        starts = [
            initial_values(model, candidate, problem.base.spec, setup, one.train, fold, execution.micro_batch)
            if not checkpoint.holds(fold) else {} for fold, one in enumerate(folds)
        ]  # fmt: skip
        data, _ = problem.trunk.prepare(candidate.method.name, model)
        factors = self._factors(candidate, model)
        pack(model, len(folds), sites=problem.packed[candidate.method.name])
        rows = rows_of_epoch(folds, candidate.hyper.batch_size)
        learner = Learner(model, candidate.hyper, rows, execution, device=problem.device)
        learner.start_from(starts)
        member = Member(learner, replace(setup, rows=data), factors)
        member.histories = checkpoint.restore(range(len(folds)), learner)
        return member

    def _admit(self, member: Member) -> bool:
        """Let a candidate into the cohort, if all members then have the gradients that they have alone."""
        problem, method = self._problem, self.first.method.name
        if self._cohort is None:
            model = self._model(self.first)
            data, _ = problem.trunk.prepare(method, model)
            factors, setup = self._factors(self.first, model), replace(problem.setup(self.first), rows=data)
            sites = problem.packed[method]
            self._cohort = Cohort(model, setup, factors, sites=sites, watch=self._watch)
        cohort, before = self._cohort, list(self._cohort.members)
        cohort.admit(member)
        if not before:
            return True
        rows: Encoded = cohort.setup.rows
        grew = any(
            mine > max(sizes)
            for shape, *others in zip(member.shapes, *(one.shapes for one in before), strict=True)
            for mine, sizes in zip(shape, zip(*others, strict=True), strict=True)
        )
        others = [one for one in before if all(tensor.isfinite().all() for tensor in one.learner.tensors)]

        def batch(candidates: int) -> Batch:
            return few_rows(problem.folds, rows, problem.device, candidates)

        def of(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            return gradients(model, batch, cohort.setup.task, problem.device)

        try:
            same = agrees(cohort, [member, *others * grew], of, batch, problem.device.autocast or torch.float32)
        except Exception:
            cohort.leave(member)
            raise
        if not same:
            cohort.leave(member)
        return same

    def _model(self, candidate: Candidate) -> nn.Module:
        model = attach(self._problem.base, candidate.method, candidate.params, seed=self._problem.spec.seed)
        return model.to(self._problem.device.type)

    def _factors(self, candidate: Candidate, model: nn.Module) -> dict[str, float]:
        return {**candidate.method.factors(trainable(model), candidate.params, self._problem.base.spec)}

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Note what the block takes at its peak."""
        on_gpu = self._problem.device.type == "cuda"
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            yield
        finally:
            self._peak = max(self._peak, gpu.taken() if on_gpu else self._watch.peak)


def _shared_usage(usage: Usage, shared: tuple[Execution, MemoryEstimate]) -> Usage:
    """What a candidate needs, with the memory of the whole pass that it shares."""
    needs = {measure: need for measure, need in usage.needs.items() if measure != MEMORY.measure}
    found = Usage(usage.trainable_params, lambda: usage.weights, lambda: shared, needs)
    _ = found.weights, found.memory  # so that both count as known
    return found
