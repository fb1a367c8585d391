"""Candidates of one method that train in one pass: the frozen base runs once for all of them and all their folds.

Candidates may differ in the shapes of their tensors. Each stack has the largest one, and the others are padded with
zeros. Where a pair of tensors is padded on both sides, as LoRA's A and B and an adapter's two maps are, no gradient
reaches the padding; AdamW then leaves it at zero, whatever its decay. `cohort_check` compares gradients, so nothing is
taken for granted. Every slice has its own learning rate, decay, schedule, clipping, batches and dropout.

A candidate draws its values at its own shape from its own seed, and takes them back at each rung. So others may join
and leave there, and it can go on alone.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from autopeft.common.containment import heartbeat
from autopeft.common.seeds import derive_seed
from autopeft.models.attach import trainable
from autopeft.models.modes import train_mode
from autopeft.training.batch import Batch
from autopeft.training.learner import evaluate
from autopeft.training.packing import pack
from autopeft.training.slice_adamw import Plan, SliceAdamW
from autopeft.training.slice_dropout import SliceDropout
from autopeft.training.step import backward

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np

    from autopeft.training.cohort_member import Member
    from autopeft.training.setup import Setup


class Cohort:
    """A packed model whose slices are the folds of its members in turn.

    Args:
        model: with the add-on of any of them on; it is changed.
        setup: what their trials share.
        factors: those of the model, as `Member.factors`.
        sites: how the model is packed, see `pack`.
        watch: entered around every step with this cohort and the places of the pass; may raise.

    Attributes:
        members: the candidates, in the order of their slices.
    """

    def __init__(
        self,
        model: nn.Module,
        setup: Setup,
        factors: Mapping[str, float],
        *,
        sites: bool = False,
        watch: Callable[[Cohort, int], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.setup, self.watch, self._own = setup, watch, factors
        self.members: list[Member] = []
        self._factors: dict[str, torch.Tensor] = {}
        self.model = pack(model, len(setup.folds), sites=sites, factors=self._factors)
        named = trainable(self.model)
        self.names, self.parameters = list(named), list(named.values())
        self._dimensions = [parameter.ndim for parameter in self.parameters]
        self._optimizer: SliceAdamW | None = None

    def admit(self, member: Member) -> None:
        """Let a candidate in.

        Raises:
            ValueError: its tensors are other ones than the cohort's.
        """
        if member.names != self.names or [len(shape) for shape in member.shapes] != self._dimensions:
            raise ValueError("it trains other tensors.")
        member.learner.take_turn()  # its tensors stay on the device
        self.members.append(member)

    def leave(self, member: Member) -> None:
        """Let a candidate go; it has its state."""
        self.members.remove(member)

    def train(self, steps: int) -> None:
        """Train every member by so many steps; each then has its state and its losses."""
        members, folds, setup = self.members, len(self.setup.folds), self.setup
        self._hold(members)
        optimizer = self._make_optimizer()
        train_mode(self.model)
        rates = torch.tensor([member.rates(steps) for member in members], device=setup.device.type).T
        torch.manual_seed(derive_seed(setup.seed, *(member.learner.done for member in members)))  # dropout
        losses = []
        for rate in rates.repeat_interleave(folds, dim=1):
            heartbeat()
            rows = [few for member in members for few in member.batch()]
            batch = Batch.of(setup.rows, rows, setup.device.type)
            with self.watch(self, batch.places) if self.watch else nullcontext():
                losses.append(backward(self.model, batch, setup.task, setup.device))
                optimizer.step(rate)
        found = torch.stack(losses).cpu().numpy()  # the only wait for the device
        for number, member in enumerate(members):
            member.learnt(found[:, number * folds : (number + 1) * folds])
            for index, views in enumerate(optimizer.views):
                member.keep(index, *(view[_corner(member, number, index)] for view in views))
        self._release()

    def evaluate(self, members: Sequence[Member]) -> list[list[np.ndarray]]:
        """Each member's answers to the held-out rows of each of its folds."""
        folds, setup = len(self.setup.folds), self.setup
        self._hold(members)
        rows = [fold.validation for fold in setup.folds] * len(members)
        found = evaluate(self.model, setup.rows, rows, setup.task, setup.device)
        self._release()
        return [found[start : start + folds] for start in range(0, len(found), folds)]

    def gradients(
        self, of: Callable[[nn.Module, Batch], Mapping[str, torch.Tensor]], batch: Batch
    ) -> list[torch.Tensor]:
        """The gradients of every stack for a batch with rows for every slice, as `of` finds them."""
        self._hold(self.members)
        found = of(self.model, batch)
        self._release()
        return [found[name] for name in self.names]

    def kept_tensors(self) -> list[torch.Tensor]:
        """Tensors kept between steps besides the model's: the optimiser's, and each member's own."""
        held = [] if self._optimizer is None else [self._optimizer.first, self._optimizer.second]
        own = [tensor for member in self.members for tensor in member.learner.tensors]
        moments = [value for member in self.members for value in member.learner.kept_tensors()]
        return [*held, *own, *moments]

    def _hold(self, members: Sequence[Member]) -> None:
        """Make the model that of these members: their values, factors and rates of dropout."""
        folds, device = len(self.setup.folds), self.parameters[0].device
        for index, parameter in enumerate(self.parameters):
            largest = [max(sizes) for sizes in zip(*(member.shapes[index][1:] for member in members), strict=True)]
            stack = torch.zeros(len(members) * folds, *largest, device=device)
            for number, member in enumerate(members):
                stack[_corner(member, number, index)] = member.learner.tensors[index]
            parameter.data, parameter.grad = stack, None
        self._factors.clear()
        for name in self._own:
            ratios = [member.factors[name] / self._own[name] for member in members for _ in range(folds)]
            if {*ratios} != {1.0}:
                self._factors[name] = torch.tensor(ratios, device=device)
        placed = {name for name, module in self.model.named_modules() if isinstance(module, SliceDropout)}
        for name in placed.union(*(member.dropouts for member in members)):
            rates = [member.dropouts.get(name, 0.0) for member in members for _ in range(folds)]
            there = self.model.get_submodule(name)
            if isinstance(there, SliceDropout):
                there.set(rates, device)
            elif {*rates} != {there.p if isinstance(there, nn.Dropout) else 0.0}:
                self.model.set_submodule(name, SliceDropout(rates, device))

    def _make_optimizer(self) -> SliceAdamW:
        """The optimiser of the members whose values the model holds, with their moments and step counts."""
        folds = len(self.setup.folds)
        plans = []
        for single in zip(*(member.plans() for member in self.members), strict=True):
            slices = [one for one in single for _ in range(folds)]
            plans.append(Plan(tuple(one.rates[0] for one in slices), tuple(one.decays[0] for one in slices)))
        self._optimizer = optimizer = SliceAdamW(self.parameters, plans)
        for number, member in enumerate(self.members):
            optimizer.count[number * folds : (number + 1) * folds] = float(member.learner.done)
            for index, (_, *own) in enumerate(optimizer.views):
                for view, moment in zip(own, member.moments(index) or (), strict=False):
                    view[_corner(member, number, index)] = moment
        return optimizer

    def _release(self) -> None:
        """Free the stacks."""
        self._optimizer = None
        for parameter in self.parameters:
            parameter.data, parameter.grad = parameter.data.new_empty(0), None


def _corner(member: Member, number: int, index: int) -> tuple[slice, ...]:
    """Where a member's tensor is in its stack; the rest of its slices is padding."""
    folds, *sizes = member.shapes[index]
    return (slice(number * folds, (number + 1) * folds), *(slice(0, size) for size in sizes))
