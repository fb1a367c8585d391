"""Appraise a candidate before it trains: parameters counted on the meta device, memory predicted on fake tensors."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from autopeft import memory
from autopeft.budget import Budget, Usage
from autopeft.exceptions import BudgetError
from autopeft.execution import Execution, ways
from autopeft.model import attach, checkpoint_layers, train_mode, trainable
from autopeft.training import Device, make_optimizer, training_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import torch
    from torch import nn

    from autopeft.candidate import Candidate, CandidateSpace, MethodSpace
    from autopeft.model import BaseModel
    from autopeft.tasks import TaskKind


CORNERS_TRIED = 6
"""Of each method, before a search says that nothing fits: counting is cheap, predicting memory is not."""


class Appraiser:
    """Says what a candidate needs; remembers what it has worked out.

    Args:
        base: the model.
        task: gives the loss.
        device: the device and precision training would use.
        lengths: tokens of each training row; the longest rows make the batch that decides.
        columns: the token columns of a batch.
        limit: bytes a step may take; the fastest way to run a batch within it is chosen.
    """

    def __init__(
        self,
        base: BaseModel,
        task: TaskKind,
        device: Device,
        lengths: np.ndarray,
        columns: tuple[str, ...],
        limit: int | None = None,
    ) -> None:
        self._base, self._task, self._device, self._columns = base, task, device, columns
        self._rows, self._longest, self._limit = len(lengths), int(lengths.max()), limit
        self._known: dict[tuple[object, ...], Usage] = {}
        self._unseen: dict[str, int] = {}

    def __call__(self, candidate: Candidate) -> Usage:
        """The candidate's usage: exact parameter counts, predicted peak memory of one step at the longest batch."""
        size = candidate.hyper.batch_size
        key = (candidate.method.name, tuple(candidate.params.items()), size)
        if key not in self._known:
            model = attach(self._base, candidate.method, candidate.params, meta=True)
            self._known[key] = Usage(
                trainable_params=sum(parameter.numel() for parameter in trainable(model).values()),
                saved_params=saved_params(model),
                fit_memory=functools.partial(self._fit, candidate),
            )
        return self._known[key]

    def batch_shapes(self, batch_size: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the largest batch of that size."""
        rows = min(batch_size, self._rows)
        return {**dict.fromkeys((*self._columns, "attention_mask"), (rows, self._longest)), "labels": (rows,)}

    def learn(self, name: str, excess: int) -> None:
        """Correct the predictions for a method by how many bytes more than predicted one of its trials took.

        A method's kernels may take memory that fake tensors do not show. What a prediction was short by is added to
        all later ones for that method, and to no other method's.
        """
        if excess > 0:
            self._unseen[name] = self._unseen.get(name, 0) + excess
            self._known = {key: usage for key, usage in self._known.items() if key[0] != name}

    def _fit(self, candidate: Candidate) -> tuple[Execution, memory.MemoryEstimate]:
        """The fastest way to run a batch that fits the limit, with its memory; the smallest where none does."""
        size = min(candidate.hyper.batch_size, self._rows)
        whole = Execution(size)
        estimate = self.predict(candidate, whole)
        if self._limit is None or estimate.peak <= self._limit or size == 1:
            return whole, estimate
        smallest, least = self._smallest(candidate)
        if least.peak > self._limit:
            return smallest, least
        for way in ways(size, self._longest, self._device.type):
            if way in (whole, smallest) or (way.checkpointing and not smallest.checkpointing):
                continue
            estimate = self.predict(candidate, way)
            if estimate.peak <= self._limit:
                return way, estimate
        return smallest, least

    def _smallest(self, candidate: Candidate) -> tuple[Execution, memory.MemoryEstimate]:
        """One row at a time, with checkpointed layers where the method can do with them and they help."""
        plain = Execution(1), self.predict(candidate, Execution(1))
        log = logging.getLogger("torch._subclasses.fake_tensor")  # would print a traceback for each refusal
        log.disabled = True
        try:
            checkpointed = Execution(1, checkpointing=True), self.predict(candidate, Execution(1, checkpointing=True))
        except Exception:  # the method's layers cannot run twice; PyTorch says so in many ways
            return plain
        finally:
            log.disabled = False
        return min(plain, checkpointed, key=lambda pair: pair[1].peak)

    def predict(self, candidate: Candidate, execution: Execution) -> memory.MemoryEstimate:
        """Predicted peak of one step at the longest batch, run that way."""
        passes = 2 if execution.micro_batch < min(candidate.hyper.batch_size, self._rows) else 1

        def make_step(module: nn.Module) -> Callable[[Mapping[str, torch.Tensor]], object]:
            optimizer = make_optimizer(module, candidate.hyper)
            # From the second pass on, the first one's gradients are there; a third would add nothing.
            return lambda batch: training_step(module, optimizer, [batch] * passes, self._task, self._device)

        # Attached once more, so that the table of what is known holds no models.
        model = attach(self._base, candidate.method, candidate.params, meta=True)
        if execution.checkpointing:
            checkpoint_layers(model)
        train_mode(model)
        estimate = memory.predict(model, make_step, self.batch_shapes(execution.micro_batch), self._device.type)
        return replace(estimate, workspace=estimate.workspace + self._unseen.get(candidate.method.name, 0))


def require_room(space: CandidateSpace, appraise: Appraiser, budget: Budget) -> None:
    """Make sure that the budget admits something, at the cheapest batch size, before anything trains.

    Raises:
        BudgetError: no default and no corner of the space fits; the message names the closest one and what it needs.
    """
    closest: tuple[float, str, str] | None = None
    for part in space.values():
        for candidate in _cheapest(part, appraise):
            usage = appraise(candidate)
            violations = budget.violations(usage)
            if all(violation <= 0 for violation in violations.values()):
                return
            worst = max(violations.values())
            if closest is None or worst < closest[0]:
                closest = (worst, str(candidate), budget.reason(usage))
    if closest is not None:
        raise BudgetError(
            f"nothing in the search space fits the budget. The closest candidate is {closest[1]}, but it {closest[2]}. "
            "Raise that limit in [budget], or widen the space in [search]."
        )


def _cheapest(part: MethodSpace, appraise: Appraiser) -> list[Candidate]:
    """A method's default and the few corners that train least, all at the smallest batch the space allows."""
    training = part.training.defaults()
    training["batch_size"] = min(part.training["batch_size"].extremes())
    corners = [part.candidate(params, training) for params in part.own.corners()]
    corners.sort(key=lambda candidate: appraise(candidate).trainable_params)
    return [part.candidate(part.own.defaults(), training), *corners[:CORNERS_TRIED]]


def saved_params(model: nn.Module) -> int:
    """Parameters in the saved add-on: peft keeps only a reparameterized prefix's result, all else as trained."""
    from peft import PeftModel

    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        config = model.active_peft_config
        prompt = config.num_virtual_tokens * config.token_dim
        if config.peft_type == "PREFIX_TUNING":
            prompt *= config.num_layers * 2  # keys and values of every layer
        encoder = {id(parameter) for parameter in model.prompt_encoder.parameters()}
        return int(prompt) + sum(p.numel() for p in trainable(model).values() if id(p) not in encoder)
    return sum(parameter.numel() for parameter in trainable(model).values())
