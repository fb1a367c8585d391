"""Cross-validation with all folds in lockstep, one rung at a time.

After each rung the pruner sees the mean over *all* folds, which is far less noisy than one fold's curve, so ordinary
pruners apply unchanged.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from autopeft.common.seeds import derive_seed
from autopeft.training.learner import EVALUATION_BATCH_SIZE, Learner, evaluate, train_epoch
from autopeft.training.rungs import Rung, epochs_between, rung_ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from autopeft.methods.callback import TrainingCallback
    from autopeft.methods.training_space import Hyperparameters
    from autopeft.training.batch_plan import Execution
    from autopeft.training.checkpoint import Checkpoint
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

    Folds take turns on the model, or advance side by side where `execution` has all of them packed. They start from the
    model's current values and those that `setup` has for each, or from where `checkpoint` has them; it is given each
    fold's state at each rung. Rungs reached before an interruption are yielded again, at once. A caller that stops
    iterating prunes the trial. `make_callback` is asked once a fold; `answers` gets the last ones, by its number.

    Raises:
        DivergedError: a fold's loss is no longer finite.
    """
    data, folds, task, device, seed = setup.rows, setup.folds, setup.task, setup.device, setup.seed
    packed = execution and execution.folds > 1
    turns = [range(len(folds))] if packed else [range(i, i + 1) for i in range(len(folds))]
    fewest, most = (extreme(len(fold.train) for fold in folds) for extreme in (min, max))
    rows = min(most, fewest * hyper.batch_size)  # no fold may have fewer rows than the epoch has batches
    # Where a batch has to be cut up to fit, evaluation keeps to as few rows; without gradients these take less.
    tight = execution is not None and (execution.checkpointing or execution.micro_batch < min(rows, hyper.batch_size))
    most = execution.micro_batch if execution and tight else EVALUATION_BATCH_SIZE
    make = partial(Learner, model, hyper, rows, execution, watch, scaled=device.scaled, optimizer=device.optimizer)
    learners = [make(callback=make_callback()) for _ in turns]
    histories: list[list[tuple[float, float]]] = [[] for _ in folds]
    for turn, learner in zip(turns, learners, strict=True):
        learner.start_from(setup.starts[turn.start : turn.stop])
        if checkpoint:
            histories[turn.start : turn.stop] = checkpoint.restore(turn, learner)
    ends = rung_ends(hyper.epochs, fewest)
    for number, (start, end) in enumerate(itertools.pairwise([0.0, *ends]), 1):
        for turn, learner in zip(turns, learners, strict=True):
            training, held_out = ([getattr(folds[i], part) for i in turn] for part in ("train", "validation"))
            if all(len(histories[fold]) >= number for fold in turn):
                if answers is not None and number == len(ends):  # they were not kept, and take no training
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
            for fold, loss, few, predicted in zip(turn, losses, held_out, predictions, strict=True):
                truths = data.truths[data.rows_of(few)]
                histories[fold].append((task.score_of_fold(setup.metric, truths, predicted), float(loss)))
            if answers is not None and number == len(ends):
                answers |= zip(turn, predictions, strict=True)
            if checkpoint:
                checkpoint.keep(turn, learner, histories[turn.start : turn.stop])
            learner.end_turn()
        reached = [history[number - 1] for history in histories]
        yield Rung(number, end, tuple(score for score, _ in reached), float(np.mean([loss for _, loss in reached])))
