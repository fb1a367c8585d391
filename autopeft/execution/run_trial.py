"""One trial: put the method on, train all folds rung by rung, and come back whatever happens."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from autopeft.budget.memory import peak as memory
from autopeft.budget.memory_watch import MemoryWatch, ran_out, release_memory, together
from autopeft.budget.time_watch import OverTimeError, TimeWatch
from autopeft.common import machine
from autopeft.common.containment import by_host, guarded, running_time, unguarded
from autopeft.common.exceptions import MachineError, StoreError, in_a_line
from autopeft.execution.outcome import Outcome
from autopeft.models.attach import attach
from autopeft.models.modes import checkpoint_layers, train_mode
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, PRUNED, STOPPED, TIMED_OUT
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.cross_validation import cross_validate
from autopeft.training.learner import Learner
from autopeft.training.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.data.encoded import Encoded
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.training.checkpoint import Checkpoint
    from autopeft.training.rungs import Rung


@unguarded()
def run_trial(
    problem: Problem,
    candidate: Candidate,
    stop: Callable[[Rung], str | None],
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Cross-validate a candidate. `stop` is asked after each rung; a reason it gives prunes the trial.

    With a `checkpoint` an interrupted trial goes on from the last rung each fold reached. It is still there when the
    trial has ended: whoever keeps the outcome removes it then.

    Nothing a method does escapes: its exception, its silence, a loss that diverges or exhausted memory ends as an
    outcome FAIL, and the trial's memory is returned before this function is. Where memory ran out the trial runs once
    more, with its batches in smaller parts.

    Raises:
        StoreError: what the study keeps of it could not be written.
        MachineError: the machine failed; the trial is not over, and goes on when it runs again.
        Exception: whatever `stop` raises.
    """
    started = running_time()
    rungs: list[Rung] = []
    watch = MemoryWatch(problem.budget.max_gpu_memory, problem.device.type)
    name, whole = candidate.method.name, problem.trunk.whole
    usage = problem.cost_estimator(candidate)
    planned = usage.execution
    if planned.folds > 1 and checkpoint and not checkpoint.even(len(problem.folds)):
        planned = Execution(planned.micro_batch)
    evaluations = len(problem.rung_ends(candidate.hyper.epochs)) * len(problem.train) / candidate.hyper.batch_size
    pace = TimeWatch(problem.budget)
    state, reason, refused, execution = FAIL, "", "", planned
    for execution in filter(None, (planned, planned.smaller)):
        pace.expect(len(problem.folds) // execution.folds, evaluations / execution.folds)
        try:
            with guarded(problem.spec.search.hang_timeout, memory=False):
                state, reason = _train(problem, candidate, execution, by_host(stop), rungs, watch, pace, checkpoint)
        except OverTimeError as error:
            state, reason = INFEASIBLE, str(error)
            break
        except StoreError:  # no fault of the method's; the trial is not over, and the next start goes on with it
            raise
        except Exception as error:  # a plugin may raise anything, and one trial must not end the study
            state, reason = FAIL, in_a_line(error)
            if not ran_out(error):
                break
            refused = reason if machine.out_of_memory(error) else ""
            reason = f"out of memory with {execution}: {reason}"
            watch.ran_out()
        else:
            refused = ""
            break
        finally:
            release_memory()
    if refused and machine.short_of_memory(usage.memory.peak):
        raise MachineError(machine.no_memory(refused))
    unseen = 0
    if name in problem.trunk.whole - whole:  # the prediction was for a model that is cut, and this one was not
        problem.cost_estimator.forget(name)
    elif watch.peak > usage.memory.peak:
        unseen = problem.cost_estimator.unseen(name) + watch.peak - usage.memory.peak
        problem.cost_estimator.learn(name, unseen)
    seconds = running_time() - started
    return Outcome(
        state,
        reason,
        tuple(rungs),
        measured_memory=watch.peak or None,
        seconds=seconds,
        needed_seconds=seconds if state == COMPLETE else pace.predicted,
        execution=execution,
        unseen=unseen,
    )


def _train(
    problem: Problem,
    candidate: Candidate,
    execution: Execution,
    stop: Callable[[Rung], str | None],
    rungs: list[Rung],
    watch: MemoryWatch,
    pace: TimeWatch,
    checkpoint: Checkpoint | None,
) -> tuple[str, str]:
    """Put the method on and cross-validate, adding to `rungs`; COMPLETE, or PRUNED or STOPPED with the reason."""
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed)
    model.to(problem.device.type)
    data, _ = problem.trunk.prepare(candidate.method.name, model)
    if execution.checkpointing:
        checkpoint_layers(model)
    if execution.folds > 1:
        pack(model, execution.folds, sites=problem.packed[candidate.method.name])
    make_callback = partial(candidate.method.callback, model, candidate.params, problem.base.spec)
    _measure(problem, data, Learner(model, candidate.hyper, len(data), execution, callback=make_callback()), watch)
    for rung in cross_validate(
        model,
        replace(problem.setup, rows=data),
        candidate.hyper,
        execution=execution,
        watch=together(watch, pace),
        checkpoint=checkpoint,
        make_callback=make_callback,
    ):
        if rung.number <= len(rungs):  # reached before memory ran out, and kept
            continue
        rungs.append(rung)
        reason = stop(rung)
        if reason and rung.epoch < candidate.hyper.epochs:
            return STOPPED if reason == TIMED_OUT else PRUNED, reason
        pace.check()
    return COMPLETE, ""


def _measure(problem: Problem, data: Encoded, learner: Learner, watch: MemoryWatch) -> None:
    """Run one real step at the longest batch, on tensors that are thrown away afterwards; the watch sees its peak.

    A trial that runs out of memory then does so at once, and not at the batch that happens to be the longest.
    """
    model, execution = learner.model, learner.execution
    longest = data.lengths.argsort()[::-1]
    batch = Batch.of(data, [longest[: execution.micro_batch]] * execution.folds, problem.device.type)
    passes = 2 if execution.micro_batch < min(learner.hyper.batch_size, len(longest)) else 1
    initial = [parameter.data for parameter in learner.parameters]
    learner.take_turn()
    train_mode(model)
    with torch.random.fork_rng():
        peak = memory.measure(
            lambda: learner.step([batch] * passes, problem.task, problem.device),
            model,
            problem.device.type,
            others=(*batch.tensors.values(), *learner.kept_tensors()),
        )
    for parameter, tensor in zip(learner.parameters, initial, strict=True):
        parameter.data = tensor
    watch.note(peak)
