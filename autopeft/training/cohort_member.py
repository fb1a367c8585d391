"""A candidate in a cohort: the state of its folds, where its training stands, and its results so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from autopeft.common.seeds import derive_seed
from autopeft.models.attach import trainable
from autopeft.models.marks import FROZEN
from autopeft.training.batch import bucketed
from autopeft.training.cross_validation import reached, rung_of
from autopeft.training.rungs import epochs_between, rung_ends
from autopeft.training.slice_adamw import Plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.training.checkpoint import History
    from autopeft.training.learner import Learner
    from autopeft.training.rungs import Rung
    from autopeft.training.setup import Setup


class Member:
    """A candidate whose folds train in one pass with those of others.

    Its batches, its schedule, its rungs and its state are those of a trial alone, so a checkpoint of one is one of the
    other. Only the random numbers of dropout differ.

    Args:
        learner: of all its folds, packed; its own model stays as it is, and is used to check gradients.
        setup: what a trial gets.
        factors: by the name of a trained tensor, what its own model multiplies it by (`PeftMethod.factors`).

    Attributes:
        histories: each fold's results so far.
        ends: after how many epochs it is scored.
        shapes: of its trained tensors, `[folds, …]`.
        dropouts: the rate of each dropout that is part of its add-on, by the module's name.
    """

    def __init__(self, learner: Learner, setup: Setup, factors: Mapping[str, float]) -> None:
        if learner.average is not None or learner.scale is not None:
            raise ValueError("a moving average and a scaled loss are not for cohorts.")
        self.learner, self.setup, self.factors = learner, setup, factors
        self.histories: list[History] = [[] for _ in setup.folds]
        fewest = min(len(fold.train) for fold in setup.folds)
        self.ends = rung_ends(learner.hyper.epochs, fewest, setup.longest)
        self.names = list(trainable(learner.model))
        self.shapes = [tuple(tensor.shape) for tensor in learner.tensors]
        self.dropouts = {
            name: module.p
            for name, module in learner.model.named_modules()
            if isinstance(module, nn.Dropout) and not hasattr(module, FROZEN)
        }
        self._epoch, self._schedules = 0, list[list[np.ndarray]]()
        self._losses: list[np.ndarray] = []

    @property
    def rung(self) -> int:
        """How many rungs it has reached."""
        return len(self.histories[0])

    @property
    def ended(self) -> bool:
        """Whether it has reached the last one."""
        return self.rung == len(self.ends)

    @property
    def to_rung(self) -> int:
        """Steps to its next rung."""
        return self._steps(self.ends[self.rung]) - self.learner.done

    def plans(self) -> list[Plan]:
        """How each of its tensors is trained, for one slice."""
        of = {
            id(parameter): Plan((float(group["rate"]),), (float(group["weight_decay"]),))
            for group in self.learner.optimizer.param_groups
            for parameter in group["params"]
        }
        return [of[id(parameter)] for parameter in self.learner.parameters]

    def rates(self, steps: int) -> list[float]:
        """The learning rates of its next steps."""
        learner = self.learner
        return [learner.hyper.learning_rate * learner.schedule.factor(learner.done + step) for step in range(steps)]

    def batch(self) -> list[np.ndarray]:
        """The rows of each fold in its next step, which is then counted as done."""
        learner, setup = self.learner, self.setup
        epoch, place = divmod(learner.done, learner.batches)
        if self._epoch != epoch + 1:
            self._epoch = epoch + 1
            order = derive_seed(setup.seed, self._epoch)
            self._schedules = [
                bucketed(
                    setup.rows.extents[fold.train], learner.batches, derive_seed(setup.seed, index, self._epoch), order
                )
                for index, fold in enumerate(setup.folds)
            ]
        learner.done += 1
        return [fold.train[few[place]] for fold, few in zip(setup.folds, self._schedules, strict=True)]

    def learnt(self, losses: np.ndarray) -> None:
        """Take in the losses of its latest steps, `[steps, folds]`."""
        self._losses.extend(losses)

    @property
    def finite(self) -> bool:
        """Whether all losses since its last rung are finite numbers."""
        return bool(np.isfinite(self._losses).all())

    def reach(self, answers: Sequence[np.ndarray]) -> Rung:
        """Take in the answers to each fold's held-out rows after the steps to a rung; returns the rung."""
        end = self.ends[self.rung]
        start = self.ends[self.rung - 1] if self.rung else 0.0
        share = epochs_between(start, end)[-1][1]  # the loss of a rung is that of its last epoch
        first, last = (round(part * self.learner.batches) for part in share)
        losses = np.mean(self._losses[-(last - first) :], axis=0)
        self._losses.clear()
        for fold, loss, history, answered in zip(self.setup.folds, losses, self.histories, answers, strict=True):
            curve = [*(rung.loss for rung in history), float(loss)]
            history.append(reached(self.setup, fold, answered, curve, end / self.learner.hyper.epochs))
        return self.at(self.rung)

    def at(self, number: int) -> Rung:
        """A rung that it has reached, from 1."""
        return rung_of(number, self.ends[number - 1], [history[number - 1] for history in self.histories])

    def moments(self, index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The optimiser's moments of a tensor, `[folds, …]` each; None before its first step."""
        state = self.learner.optimizer.state.get(self.learner.parameters[index])
        return (state["exp_avg"], state["exp_avg_sq"]) if state else None

    def keep(self, index: int, values: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> None:
        """Take back a tensor and its moments from the cohort."""
        learner = self.learner
        learner.tensors[index].copy_(values)
        learner.optimizer.state[learner.parameters[index]] = {
            "step": torch.tensor(float(learner.done), device=values.device),
            "exp_avg": first.clone(),
            "exp_avg_sq": second.clone(),
        }

    def _steps(self, epochs: float) -> int:
        whole = int(epochs)
        return whole * self.learner.batches + round((epochs - whole) * self.learner.batches)
