"""One trial: put the method on, train all folds rung by rung, and come back whatever happens."""

from __future__ import annotations

import gc
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from autopeft import memory
from autopeft.cross_validation import Rung, cross_validate
from autopeft.model import attach, train_mode
from autopeft.training import Learner, training_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from autopeft.candidate import Candidate
    from autopeft.checkpoint import Checkpoint
    from autopeft.problem import Problem

COMPLETE, PRUNED, INFEASIBLE, FAIL = "COMPLETE", "PRUNED", "INFEASIBLE", "FAIL"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: COMPLETE, PRUNED, INFEASIBLE or FAIL.
        reason: why it is not COMPLETE, as a sentence.
        rungs: where it stood at each rung.
        measured_memory: peak bytes of a real training step at the longest batch, None if it never trained.
        seconds: wall time.
    """

    state: str
    reason: str = ""
    rungs: tuple[Rung, ...] = ()
    measured_memory: int | None = None
    seconds: float = 0.0

    @property
    def score(self) -> float | None:
        """Mean fold score at the last rung."""
        return self.rungs[-1].mean if self.rungs else None

    @property
    def kind_of_failure(self) -> str:
        """The reason without its numbers, to tell a fault that repeats from one that happens once."""
        return re.sub(r"[\d.]+", "#", self.reason)


def run_trial(
    problem: Problem,
    candidate: Candidate,
    stop: Callable[[Rung], str | None],
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Cross-validate a candidate. `stop` is asked after each rung; a reason it gives prunes the trial.

    With a `checkpoint` an interrupted trial goes on from the last rung each fold reached; it is removed when the
    trial ends.

    Nothing a trial does escapes but an interrupt: an exception of the method, a loss that diverges or exhausted
    memory ends as an outcome FAIL, and the trial's memory is returned before this function is.
    """
    started = time.monotonic()
    rungs: list[Rung] = []
    measured = None
    state, reason = COMPLETE, ""
    model: nn.Module | None = None
    try:
        model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed)
        model.to(problem.device.type)
        measured = _measure(problem, candidate, model)
        for rung in cross_validate(
            model,
            problem.train,
            problem.folds,
            candidate.hyper,
            task=problem.task,
            metric=problem.spec.validation.metric,
            device=problem.device,
            seed=problem.spec.seed,
            checkpoint=checkpoint,
        ):
            rungs.append(rung)
            pruned = stop(rung)
            if pruned and rung.epoch < candidate.hyper.epochs:
                state, reason = PRUNED, pruned
                break
    except (MemoryError, torch.OutOfMemoryError) as error:
        state, reason = FAIL, f"out of memory: {_first_line(error)}"
    except Exception as error:  # a plugin may raise anything, and one trial must not end the study
        state, reason = FAIL, f"{type(error).__name__}: {_first_line(error)}"
    finally:
        model = None
        release_memory()
    if checkpoint:
        checkpoint.remove()
    return Outcome(state, reason, tuple(rungs), measured, time.monotonic() - started)


def release_memory() -> None:
    """Return what a trial held: reference cycles in modules first, then the CUDA cache."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _measure(problem: Problem, candidate: Candidate, model: nn.Module) -> int:
    """Peak bytes of one real step at the longest batch, on tensors that are thrown away afterwards."""
    rows = problem.train.lengths.argsort()[::-1][: candidate.hyper.batch_size]
    batch = problem.train.batch(rows, problem.device.type)
    learner = Learner(model, candidate.hyper, len(problem.train))
    initial = [parameter.data for parameter in learner.parameters]
    learner.take_turn()
    train_mode(model)
    with torch.random.fork_rng():
        peak = memory.measure(
            lambda: training_step(model, learner.optimizer, batch, problem.task, problem.device),
            model,
            problem.device.type,
            others=batch.values(),
        )
    for parameter, tensor in zip(learner.parameters, initial, strict=True):
        parameter.data = tensor
    return peak


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
