"""The schedule of ranks: which singular values of all targets are kept after each step, and the added loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.adalora import RankAllocator

from autopeft import TrainingCallback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

ADAPTER = "default"
"""peft's name for a model's only add-on."""

CHANGES = 100
"""Most changes of ranks in a training: each waits for the device. Zhang et al. have hundreds in longer trainings."""


class RankSchedule(TrainingCallback):
    """One fold's importance scores and ranks, in a `RankAllocator` of its own.

    Args:
        model: what `apply` returned; the folds share it.
        initial_share: share of the steps, at the start, that change no ranks.
        final_share: share of the steps, at the end, that train the remaining ranks.
        orthogonality: weight of the added loss, gamma in Zhang et al.
    """

    def __init__(self, model: Any, initial_share: float, final_share: float, *, orthogonality: float) -> None:
        self._inner: nn.Module = model.base_model.model
        self._config = model.peft_config[ADAPTER]
        self._shares, self._orthogonality = (initial_share, final_share), orthogonality

    def start(self, total_steps: int) -> None:
        """Turn the shares into steps; at least one step changes ranks."""
        initial, final = (round(share * total_steps) for share in self._shares)
        self._last = max(1, total_steps - final)
        config = replace(
            self._config,
            total_step=total_steps,
            # After the first step every score is 0, since Λ was: all ranks would be dropped for good.
            tinit=min(max(initial, 1), self._last - 1),
            tfinal=total_steps - self._last,
            deltaT=max(1, total_steps // CHANGES),
        )
        self._allocator = RankAllocator(self._inner, config, ADAPTER)
        for name, parameter in self._parts("A", "B", "E"):
            for scores in (self._allocator.ipt, self._allocator.exp_avg_ipt, self._allocator.exp_avg_unc):
                scores[name] = torch.zeros_like(parameter, requires_grad=False)
        self._kept = {name: torch.ones_like(e, dtype=torch.bool, requires_grad=False) for name, e in self._parts("E")}

    def loss(self) -> torch.Tensor | None:
        """Weighted mean over all P and Q of ‖PᵀP - I‖ or ‖QQᵀ - I‖, not squared, as in the authors' code."""
        if not self._orthogonality:
            return None
        squares = [q @ q.T for _, q in self._parts("A")] + [p.T @ p for _, p in self._parts("B")]
        distances = [torch.linalg.norm(square - torch.eye(len(square), device=square.device)) for square in squares]
        return self._orthogonality * torch.stack(distances).mean()

    def before_update(self, step: int) -> None:
        """Score every entry by its smoothed sensitivity and uncertainty (Zhang et al., equations 9 to 12)."""
        if step <= self._last:
            self._allocator.update_ipt(self._inner)

    def after_update(self, step: int) -> None:
        """Set to zero all but the best singular values; the cubic schedule says how many stay (equation 13)."""
        budget, due = self._allocator.budget_schedule(step)
        if step == self._last or (due and step < self._last):
            kept = self._allocator.mask_to_budget(self._inner, budget)
            for name, e in self._parts("E"):
                self._kept[name] = torch.tensor(kept[name], device=e.device).unsqueeze(1)
        elif step > self._last:
            for name, e in self._parts("E"):
                e.masked_fill_(~self._kept[name], 0.0)

    def state(self) -> Mapping[str, torch.Tensor]:
        """The scores, and which singular values are kept."""
        allocator = self._allocator
        found = {f"sensitivity.{name}": tensor for name, tensor in allocator.exp_avg_ipt.items()}
        found |= {f"uncertainty.{name}": tensor for name, tensor in allocator.exp_avg_unc.items()}
        return found | {f"kept.{name}": tensor for name, tensor in self._kept.items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a saved state."""
        tables = {
            "sensitivity": self._allocator.exp_avg_ipt,
            "uncertainty": self._allocator.exp_avg_unc,
            "kept": self._kept,
        }
        for key, tensor in state.items():
            table, _, name = key.partition(".")
            tables[table][name] = tensor.to(tables[table][name].device)

    def _parts(self, *kinds: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Q ("A"), P ("B") or Λ ("E") of every target, with their names."""
        for name, parameter in self._inner.named_parameters():
            if any(f".lora_{kind}.{ADAPTER}" in name for kind in kinds):
                yield name, parameter
