"""AdamW over stacks where a slice may skip a step, as a fold does whose gradients overflowed in float16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable


class StackedAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) that counts the steps of every slice of `[folds, …]`.

    Each slice becomes what `torch.optim.AdamW` makes of it alone, up to rounding. That optimiser has one step count per
    tensor, for the bias correction, and can only skip a step for the whole tensor.

    Attributes:
        found_inf: float32 `[folds]`; not 0 where a slice must stay as it is, with its moments and step count. Its
            gradients must still be finite.
    """

    found_inf: torch.Tensor

    def __init__(self, params: Iterable[Any], lr: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing here gives a closure
        """Update every slice that takes part."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]) -> None:
        state: dict[str, torch.Tensor] = self.state[parameter]
        taken = 1.0 - self.found_inf
        if not state:
            state["step"] = torch.zeros_like(taken)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += taken
        first, second = group["betas"]
        count = state["step"].clamp(min=1.0)

        def of_slices(values: torch.Tensor) -> torch.Tensor:
            return values.view(-1, *[1] * (parameter.ndim - 1))

        state["exp_avg"].lerp_(gradient, of_slices((1 - first) * taken))
        state["exp_avg_sq"].lerp_(gradient.square(), of_slices((1 - second) * taken))
        parameter.mul_(of_slices(1 - group["lr"] * group["weight_decay"] * taken))
        size = state["exp_avg_sq"].sqrt().div_(of_slices((1 - second**count).sqrt())).add_(group["eps"])
        parameter.sub_(
            size.reciprocal_().mul_(state["exp_avg"]).mul_(of_slices(group["lr"] * taken / (1 - first**count)))
        )
