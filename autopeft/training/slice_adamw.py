"""AdamW over one flat buffer with a row for every slice: slices may differ in rate, decay and number of steps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from autopeft.training.step import MAX_GRADIENT_NORM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

BETAS, EPS = (0.9, 0.999), 1e-8
"""Those of `torch.optim.AdamW`."""

ALIGNED = 8
"""Numbers of float32 after which a tensor may begin without slowing down a GPU's products."""


@dataclass(frozen=True)
class Plan:
    """How one tensor of every slice is trained.

    Attributes:
        rates: by slice, what multiplies the slice's learning rate.
        decays: by slice, its weight decay.
    """

    rates: tuple[float, ...]
    decays: tuple[float, ...]


class SliceAdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) that clips and updates every slice as if alone.

    The trained tensors become views of one buffer, and so one step is some ten operations on it, however many tensors
    and slices there are. Columns that are zero in a slice, with gradients of zero, stay zero.

    Args:
        parameters: the tensors to train, `[slices, …]`; they keep their values, and become views of the buffer.
        plans: one for each.

    Attributes:
        values, first, second: the weights and their two moments, `[slices, columns]`.
        count: steps that each slice has done, `[slices, 1]`.
        views: by tensor, in the order of `parameters`: of the weights and the two moments, each `[slices, *shape]`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], plans: Sequence[Plan]) -> None:
        device, slices = parameters[0].device, len(parameters[0])
        sizes = [parameter.numel() // slices for parameter in parameters]
        # Tensors trained alike lie side by side; first those after which the next one is aligned.
        order = sorted(range(len(plans)), key=lambda i: (plans.index(plans[i]), sizes[i] % ALIGNED != 0))
        ends = dict(zip(order, itertools.accumulate(sizes[i] for i in order), strict=True))
        self.values, self.first, self.second = (torch.zeros(slices, sum(sizes), device=device) for _ in range(3))
        self.count = torch.zeros(slices, 1, device=device)
        self.views = []
        for i, parameter in enumerate(parameters):
            part = slice(ends[i] - sizes[i], ends[i])
            whole = (self.values, self.first, self.second)
            self.views.append(tuple(buffer[:, part].view(parameter.shape) for buffer in whole))
            self.views[i][0].copy_(parameter.data)
            parameter.data, parameter.grad = self.views[i][0], None
        self._parameters = [parameters[i] for i in order]
        self._parts: list[tuple[slice, torch.Tensor, torch.Tensor]] = []
        for plan, group in itertools.groupby(order, key=lambda i: plans[i]):
            members = list(group)
            share, decay = (torch.tensor(given, device=device)[:, None] for given in (plan.rates, plan.decays))
            self._parts.append((slice(ends[members[0]] - sizes[members[0]], ends[members[-1]]), share, decay))

    @torch.no_grad()
    def step(self, rates: torch.Tensor) -> None:
        """Clip and update with the gradients of the tensors, at each slice's learning rate, `[slices]`; drop them.

        Raises:
            ValueError: a tensor has no gradient; alone it would be left out of the step.
        """
        gradients = [p.grad.reshape(len(p), -1) for p in self._parameters if p.grad is not None]
        if len(gradients) < len(self._parameters):
            raise ValueError("a trained tensor got no gradient")
        for parameter in self._parameters:
            parameter.grad = None
        g = torch.cat(gradients, dim=1)
        del gradients
        g.mul_((MAX_GRADIENT_NORM / (g.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0))
        self.count += 1
        beta1, beta2 = BETAS
        self.first.lerp_(g, 1 - beta1)
        self.second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        torch.sqrt(self.second, out=g)
        g.div_((1 - beta2**self.count).sqrt()).add_(EPS)
        torch.div(self.first, g, out=g)
        g.div_(1 - beta1**self.count)
        for part, share, decay in self._parts:
            rate = rates[:, None] * share
            self.values[:, part].mul_(1 - rate * decay).addcmul_(g[:, part], rate, value=-1)
