"""The refit: a candidate trained once more on every training row, just as its folds were trained on parts of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from autopeft.budget.memory_watch import ran_out, release_memory
from autopeft.common.seeds import REFIT_STREAM, derive_seed
from autopeft.models.attach import attach
from autopeft.models.modes import checkpoint_layers
from autopeft.training.initial_values import initial_values
from autopeft.training.learner import Learner, train_epoch
from autopeft.training.rungs import epochs_between

if TYPE_CHECKING:
    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.training.batch_plan import Execution
    from autopeft.training.learner import Watch


class Refit(NamedTuple):
    """A candidate that was trained on every training row.

    Attributes:
        model: in evaluation mode.
        loss: mean batch loss over the last epoch, or over its part after the last rung but one. The last losses of
            folds are means over the same part.
        execution: how its batches were run.
    """

    model: nn.Module
    loss: float
    execution: Execution


def refit(problem: Problem, candidate: Candidate) -> nn.Module:
    """The model of a refit; see `train_whole`."""
    return train_whole(problem, candidate).model


def train_whole(problem: Problem, candidate: Candidate, run: int = 0, watch: Watch | None = None) -> Refit:
    """Train the candidate on every training row; where memory runs out, once more in smaller parts, as in its trial.

    Args:
        problem: the study's.
        candidate: what is trained.
        run: seeds the order of the rows and the dropout. The initial values are those of the folds for any number.
        watch: entered around every step; may raise.

    Raises:
        MemoryError: memory ran out again; on a GPU `torch.OutOfMemoryError`.
        DivergedError: the loss is no longer finite.
    """
    planned = replace(problem.cost_estimator(candidate).execution, folds=1)
    failed: Exception | None = None
    for execution in filter(None, (planned, planned.smaller)):
        try:
            return _train(problem, candidate, execution, REFIT_STREAM + run, watch)
        except Exception as error:
            if not ran_out(error):
                raise
            failed = error.with_traceback(None)  # whose frames hold the model
        release_memory()
    assert failed
    raise failed


def _train(problem: Problem, candidate: Candidate, execution: Execution, stream: int, watch: Watch | None) -> Refit:
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed).to(problem.device.type)
    setup, rows, most = problem.setup(candidate), problem.all_rows, execution.micro_batch
    start = initial_values(model, candidate, problem.base.spec, setup, rows, stream, most)
    data, make_whole = problem.trunk.prepare(candidate.method.name, model)
    if execution.checkpointing:
        checkpoint_layers(model)
    callback = candidate.method.callback(model, candidate.params, problem.base.spec)
    count, epochs = len(problem.train), candidate.hyper.epochs
    learner = Learner(model, candidate.hyper, count, execution, watch, callback, device=problem.device)
    learner.start_from([start])
    last_rung = [0.0, *problem.rung_ends(epochs)][-2]
    for epoch, part in (*epochs_between(0.0, last_rung), *epochs_between(last_rung, epochs)):
        seed = derive_seed(problem.spec.seed, stream, epoch)
        losses = train_epoch(learner, data, [rows], setup.task, problem.device, [seed], seed, part)
    make_whole()
    return Refit(model.eval(), float(losses[0]), execution)
