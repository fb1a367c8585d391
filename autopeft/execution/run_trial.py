"""Run one trial: attach the method, train all folds rung by rung, and return whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.budget.memory import peak as memory
from autopeft.budget.memory_watch import MemoryWatch, ran_out, release_memory, together
from autopeft.budget.time_watch import OverTimeError, TimeWatch
from autopeft.common import machine
from autopeft.common.containment import by_host, guarded, running_time, unguarded
from autopeft.common.exceptions import MachineError, SpecError, StoreError, in_a_line
from autopeft.execution.outcome import Outcome
from autopeft.models.attach import attach
from autopeft.models.modes import checkpoint_layers, train_mode
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, PRUNED, STOPPED, TIMED_OUT
from autopeft.tasks.several import SeveralTasks
from autopeft.training.batch import Batch
from autopeft.training.cross_validation import cross_validate
from autopeft.training.initial_values import initial_values
from autopeft.training.learner import Learner, joined
from autopeft.training.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from autopeft.common.params import ParamValue
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.training.batch_plan import Execution
    from autopeft.training.checkpoint import Checkpoint
    from autopeft.training.rungs import Rung
    from autopeft.training.setup import Setup


@unguarded()
def run_trial(
    problem: Problem,
    candidate: Candidate,
    stop: Callable[[Rung], str | None],
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Cross-validate a candidate. `stop` is called after each rung; if it returns a reason, the trial is pruned.

    With a `checkpoint` an interrupted trial goes on from the last rung each fold reached. It remains after the trial:
    whoever stores the outcome removes it then.

    Nothing a method does escapes: an exception, silence, a diverging loss or exhausted memory becomes an outcome FAIL,
    and the trial's memory is released before this function returns. If memory ran out, the trial runs once more with
    its batches in smaller parts.

    Raises:
        StoreError: the trial's files could not be written.
        MachineError: the machine failed; the trial is not over, and goes on when it runs again.
        Exception: whatever `stop` raises.
    """
    started = running_time()
    name, whole = candidate.method.name, problem.trunk.whole
    usage = problem.cost_estimator(candidate)
    planned = _even(usage.execution, problem, checkpoint)
    evaluations = len(problem.rung_ends(candidate.hyper.epochs)) * len(problem.train) / candidate.hyper.batch_size
    course = _Course(MemoryWatch(problem.budget.max_gpu_memory, problem.device.type), TimeWatch(problem.budget))
    state, reason, execution = FAIL, "", planned
    for execution in filter(None, (planned, planned.smaller)):
        course.pace.expect(len(problem.folds) // execution.folds, evaluations / execution.folds)
        state, reason, again = _attempt(problem, candidate, execution, stop, course, checkpoint)
        if not again:
            break
    if course.refused and machine.short_of_memory(usage.memory.peak):
        raise MachineError(machine.no_memory(course.refused))
    excess = 0
    if name in problem.trunk.whole - whole:  # the prediction was for a cut model, and this one was not cut
        problem.cost_estimator.forget(name)
    elif course.watch.peak > usage.memory.peak:
        excess = problem.cost_estimator.excess(name) + course.watch.peak - usage.memory.peak
        problem.cost_estimator.learn(name, excess)
    seconds = running_time() - started
    return Outcome(
        state,
        reason,
        tuple(course.rungs),
        measured_memory=course.watch.peak or None,
        seconds=seconds,
        needed_seconds=seconds if state == COMPLETE else course.pace.predicted,
        execution=execution,
        excess=excess,
        facts=course.facts,
    )


@dataclass
class _Course:
    """The course of a trial, over all its attempts.

    Attributes:
        watch: on the memory it takes.
        pace: on the time it takes.
        rungs: those it reached.
        refused: what the machine said when it had no memory for the trial; "" if that did not happen.
        facts: what its folds found out that answers need.
    """

    watch: MemoryWatch
    pace: TimeWatch
    rungs: list[Rung] = field(default_factory=list)
    refused: str = ""
    facts: dict[str, ParamValue] = field(default_factory=dict)


def _even(planned: Execution, problem: Problem, checkpoint: Checkpoint | None) -> Execution:
    """The planned execution, but fold by fold if an interrupted trial's folds are at different rungs, or one runs."""
    if planned.folds == 1:
        return planned
    uneven = checkpoint and not checkpoint.even(len(problem.folds))
    return replace(planned, folds=1) if uneven or planned.folds != len(problem.folds) else planned


def _attempt(
    problem: Problem,
    candidate: Candidate,
    execution: Execution,
    stop: Callable[[Rung], str | None],
    course: _Course,
    checkpoint: Checkpoint | None,
) -> tuple[str, str, bool]:
    """Train once; returns the state, its reason, and whether memory ran out, so that smaller parts may help."""
    try:
        with guarded(problem.spec.search.hang_timeout, memory=False):
            state, reason = _train(problem, candidate, execution, by_host(stop), course, checkpoint)
    except OverTimeError as error:
        return INFEASIBLE, str(error), False
    except (StoreError, SpecError):  # such as of the user's own metric: not the method's fault; the next start goes on
        raise
    except Exception as error:  # a plugin may raise anything, and one trial must not end the study
        reason = in_a_line(error)
        if not ran_out(error):
            return FAIL, reason, False
        course.refused = reason if machine.out_of_memory(error) else ""
        course.watch.ran_out()
        return FAIL, f"out of memory with {execution}: {reason}", True
    else:
        course.refused = ""
        return state, reason, False
    finally:
        release_memory()


def _train(
    problem: Problem,
    candidate: Candidate,
    execution: Execution,
    stop: Callable[[Rung], str | None],
    course: _Course,
    checkpoint: Checkpoint | None,
) -> tuple[str, str]:
    """Attach the method and cross-validate; returns COMPLETE, or PRUNED or STOPPED with the reason."""
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed)
    model.to(problem.device.type)
    setup, spec = problem.setup(candidate), problem.base.spec
    starts = [
        initial_values(model, candidate, spec, setup, one.train, fold, execution.micro_batch)
        if not (checkpoint and checkpoint.holds(fold)) else {} for fold, one in enumerate(setup.folds)
    ]  # fmt: skip
    data, _ = problem.trunk.prepare(candidate.method.name, model)
    if execution.checkpointing:
        checkpoint_layers(model)
    if execution.folds > 1:
        pack(model, execution.folds, sites=problem.packed[candidate.method.name])
    make_callback = partial(candidate.method.callback, model, candidate.params, spec)
    setup, answers = replace(setup, rows=data, starts=starts), dict[int, np.ndarray]()
    tried = Learner(model, candidate.hyper, len(data), execution, callback=make_callback(), device=problem.device)
    _measure(setup, tried, course.watch)
    for rung in cross_validate(
        model,
        setup,
        candidate.hyper,
        execution=execution,
        watch=together(course.watch, course.pace),
        checkpoint=checkpoint,
        make_callback=make_callback,
        answers=answers if problem.task.calibrates else None,
    ):
        if rung.number <= len(course.rungs):  # reached before memory ran out, and kept
            continue
        course.rungs.append(rung)
        reason = stop(rung)
        if reason and rung.epoch < candidate.hyper.epochs:
            return STOPPED if reason == TIMED_OUT else PRUNED, reason
        course.pace.check()
    course.facts = calibrated(problem, answers) if answers else {}
    return COMPLETE, ""


def calibrated(problem: Problem, answers: Mapping[int, np.ndarray]) -> dict[str, ParamValue]:
    """Facts from the answers to each fold's validation rows, which come by the fold's number."""
    data, task = problem.train, problem.task
    if isinstance(task, SeveralTasks):
        validated = {fold: data.truths[data.rows_of(problem.folds[fold].validation)] for fold in answers}
        return task.after_folds({fold: (rows, answers[fold]) for fold, rows in validated.items()})
    rows = np.concatenate([data.rows_of(problem.folds[fold].validation) for fold in answers])
    made = joined([torch.from_numpy(found) for found in answers.values()]).numpy()
    return task.calibrated(made, data.truths[rows])


def _measure(setup: Setup, learner: Learner, watch: MemoryWatch) -> None:
    """Run one real step at the longest batch, on tensors that are then thrown away; the watch sees its peak.

    So a trial that runs out of memory does so at once, and not later at its longest batch.
    """
    model, execution, data, device = learner.model, learner.execution, setup.rows, setup.device
    longest = data.longest_first
    batch = Batch.of(data, [longest[: execution.micro_batch]] * execution.folds, device.type)
    passes = 2 if execution.micro_batch < min(learner.hyper.batch_size, len(longest)) else 1
    initial = [parameter.data for parameter in learner.parameters]
    learner.take_turn()
    train_mode(model)
    with torch.random.fork_rng():
        peak = memory.measure(
            lambda: learner.step([batch] * passes, setup.task, device),
            model,
            device.type,
            others=(*batch.tensors.values(), *learner.kept_tensors()),
        )
    for parameter, tensor in zip(learner.parameters, initial, strict=True):
        parameter.data = tensor
    watch.note(peak)
