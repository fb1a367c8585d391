"""Cross-validation with all folds in lockstep, one rung at a time.

After each rung the pruner sees the mean over *all* folds, which is far less noisy than one fold's curve, so ordinary
pruners apply unchanged.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from autopeft.common.seeds import derive_seed
from autopeft.training.checkpoint import Reached
from autopeft.training.collapse import state_of_fold
from autopeft.training.learner import EVALUATION_BATCH_SIZE, Learner, evaluate, train_epoch
from autopeft.training.rungs import Rung, epochs_between, rung_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from autopeft.data.split import Fold
    from autopeft.methods.callback import TrainingCallback
    from autopeft.methods.training_space import Hyperparameters
    from autopeft.training.batch_plan import Execution
    from autopeft.training.checkpoint import Checkpoint, History
    from autopeft.training.learner import Watch
    from autopeft.training.setup import Setup


def cross_validate(
    model: nn.Module,
    setup: Setup,
    hyper: Hyperparameters,
    *,
    execution: Execution | None = None,
    watch: Watch | None = None,
    checkpoint: Checkpoint | None = None,
    make_callback: Callable[[], TrainingCallback | None] = lambda: None,
    answers: dict[int, np.ndarray] | None = None,
) -> Iterator[Rung]:
    """Train every fold to the next rung, score it on its held-out rows, yield the rung; until the last epoch ends.

    Folds take turns on the model, or advance side by side if `execution` packs all of them. They start from the model's
    current values and each fold's own in `setup`, or go on from `checkpoint`, which keeps each fold's state at each
    rung. Rungs reached before an interruption are yielded again at once. A caller that stops iterating prunes the
    trial. `make_callback` is called once per fold; `answers` gets each fold's last answers, by fold number.

    Raises:
        DivergedError: a fold's loss is no longer finite.
    """
    data, folds, task, device, seed = setup.rows, setup.folds, setup.task, setup.device, setup.seed
    packed = execution and execution.folds > 1
    turns = [range(len(folds))] if packed else [range(i, i + 1) for i in range(len(folds))]
    fewest, rows = min(len(fold.train) for fold in folds), rows_of_epoch(folds, hyper.batch_size)
    most = _most(execution, min(rows, hyper.batch_size))
    learners = [Learner(model, hyper, rows, execution, watch, make_callback(), device=device) for _ in turns]
    histories: list[History] = [[] for _ in folds]
    for turn, learner in zip(turns, learners, strict=True):
        learner.start_from(setup.starts[turn.start : turn.stop])
        if checkpoint:
            histories[turn.start : turn.stop] = checkpoint.restore(turn, learner)
    ends = rung_ends(hyper.epochs, fewest, setup.longest)
    for number, (start, end) in enumerate(itertools.pairwise([0.0, *ends]), 1):
        for turn, learner in zip(turns, learners, strict=True):
            training, held_out = ([getattr(folds[i], part) for i in turn] for part in ("train", "validation"))
            if all(len(histories[fold]) >= number for fold in turn):
                if answers is not None and number == len(ends):  # answers are not kept, and need no training
                    learner.take_turn()
                    with learner.averaged():
                        answers |= zip(turn, evaluate(model, data, held_out, task, device, most), strict=True)
                    learner.end_turn()
                continue
            for epoch, part in epochs_between(start, end):
                seeds = [derive_seed(seed, fold, epoch) for fold in turn]
                losses = train_epoch(learner, data, training, task, device, seeds, derive_seed(seed, epoch), part)
            with learner.averaged():
                predictions = evaluate(model, data, held_out, task, device, most)
            for fold, loss, predicted in zip(turn, losses, predictions, strict=True):
                curve = [*(rung.loss for rung in histories[fold]), float(loss)]
                histories[fold].append(reached(setup, folds[fold], predicted, curve, end / hyper.epochs))
            if answers is not None and number == len(ends):
                answers |= zip(turn, predictions, strict=True)
            if checkpoint:
                checkpoint.keep(turn, learner, histories[turn.start : turn.stop])
            learner.end_turn()
        yield rung_of(number, end, [history[number - 1] for history in histories])


def rows_of_epoch(folds: Sequence[Fold], batch_size: int) -> int:
    """Rows that set the length of an epoch for all folds: none may have fewer rows than the epoch has batches."""
    fewest, most = (extreme(len(fold.train) for fold in folds) for extreme in (min, max))
    return min(most, fewest * batch_size)


def rung_of(number: int, epoch: float, results: Sequence[Reached]) -> Rung:
    """The trial's rung, from its folds' results at it."""
    scores, losses, states = zip(*results, strict=True)
    return Rung(number, epoch, scores, float(np.mean(losses)), states, losses)


def _most(execution: Execution | None, batch: int) -> int:
    """Rows evaluated at a time; where batches are cut to fit, those of one part, which need less memory here."""
    if execution and (execution.checkpointing or execution.micro_batch < batch):
        return execution.micro_batch
    return EVALUATION_BATCH_SIZE


def reached(setup: Setup, fold: Fold, answers: np.ndarray, losses: Sequence[float], part: float) -> Reached:
    """A fold's result after `part` of its steps, with these losses at the rungs so far."""
    rows, task = setup.rows, setup.task
    trained, truths = (rows.truths[rows.rows_of(few)] for few in (fold.train, fold.validation))
    state = state_of_fold(task, losses, part, trained, answers, truths)
    return Reached(task.score_of_fold(setup.metric, truths, answers), losses[-1], state or "")
