"""One step of training: forward, loss, backward, and the update of every fold's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.methods.callback import TrainingCallback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from autopeft.models.device import Device
    from autopeft.tasks.contract import Task
    from autopeft.training.batch import Batch
    from autopeft.training.loss_scale import LossScale

MAX_GRADIENT_NORM = 1.0


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Batch],
    task: Task,
    device: Device,
    callback: TrainingCallback | None = None,
    step: int = 1,
    scale: LossScale | None = None,
) -> torch.Tensor:
    """Forward, loss, backward; clip, update. Returns each fold's mean loss `[folds]`, without waiting for it.

    A batch may come in several parts. Each part's loss counts by its share of the batch, so the gradients add up to
    those of the whole. No fold's loss touches another's tensors, so their sum has the gradients of each. With a
    `scale` a fold whose gradients overflow stays as it is.
    """
    folds = len(micro_batches[0].sizes)
    callback = callback or TrainingCallback()
    factors = scale.factors if scale else None
    parts = []
    weights = [batch.weight or sum(batch.sizes) for batch in micro_batches]
    for batch, weight in zip(micro_batches, weights, strict=True):
        parts.append(backward(model, batch, task, device, weight / sum(weights), factors))
    if (extra := callback.loss()) is not None:
        extra = extra if factors is None else extra * factors.sum()  # only with one fold
        extra.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.no_grad():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if scale:
            scale.unscale(parameters)
            skipped = scale.overflowed.float()
            optimizer.found_inf = skipped if folds > 1 else skipped.squeeze()  # type: ignore[attr-defined]  # as GradScaler does
        callback.before_update(step)
        clip_gradients(parameters, folds)
        optimizer.step()
        callback.after_update(step)
        if scale:
            scale.update()
    optimizer.zero_grad(set_to_none=True)
    return torch.stack(parts).sum(dim=0)


def backward(
    model: nn.Module,
    batch: Batch,
    task: Task,
    device: Device,
    share: float = 1.0,
    factors: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add the gradients of a batch, weighted by `share`; returns each fold's mean loss `[folds]`, weighted likewise.

    Each fold's gradients are multiplied by its factor in `factors` `[folds]`.
    """
    with device.kernels():
        with device.precision():
            outputs = task.run(model, batch.tensors)
        losses = torch.stack([task.loss(*part) for part in batch.per_fold(outputs)]) * share
        whole = losses.sum() if factors is None else (losses * factors).sum()
        whole.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return losses.detach()


def clip_gradients(parameters: Sequence[torch.Tensor], folds: int) -> None:
    """Scale each fold's gradients down to a norm of `MAX_GRADIENT_NORM` if theirs is larger."""
    if folds == 1:
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.reshape(folds, -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scales = (MAX_GRADIENT_NORM / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scales.view(-1, *[1] * (gradient.ndim - 1)))
