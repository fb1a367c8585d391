"""The mean of the add-ons that a trial's folds trained, used where its loss is hardly higher than theirs.

Folds start from the same values over the same frozen model, so what they learn often lies in one basin, and so does
its mean (Wortsman et al. 2022, arXiv:2203.05482). Training rows show whether it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.common.containment import heartbeat
from autopeft.common.exceptions import PluginError
from autopeft.common.seeds import AVERAGE_ROWS_STREAM, derive_seed
from autopeft.methods.contract import PeftMethod
from autopeft.models.attach import trainable
from autopeft.search.fold_models import fold_models
from autopeft.training.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.training.checkpoint import Checkpoint

BARRIER = 0.02
"""How far the mean add-on's loss may be above the mean loss of the folds: a share of the loss of the best answer that
looks at no input, or of the folds' mean loss where that is not known."""

MOST_ROWS = 1_000
"""Number of training rows on which the two are compared."""


def averaged(problem: Problem, candidate: Candidate, checkpoint: Checkpoint) -> tuple[nn.Module | None, str]:
    """The model with the mean of what the folds learnt, and ""; or None, and why there is no mean.

    Folds that collapsed are left out.

    Raises:
        PluginError: what the method gave as the mean does not fit the trained parameters.
        Exception: whatever the method raises.
    """
    method, every = candidate.method, len(problem.folds)
    if type(method).average is PeftMethod.average:
        return None, f"{method.name} has no mean of add-ons"
    folds = checkpoint.learnt(every)
    if len(folds) < 2:
        return None, f"{every - len(folds)} of {every} folds collapsed"
    rows, size = _rows(problem), problem.cost_estimator(candidate).execution.micro_batch
    learnt, losses = list[dict[str, torch.Tensor]](), list[float]()
    for model in fold_models(problem, candidate, checkpoint, folds):
        learnt.append({name: value.detach().cpu().clone() for name, value in trainable(model).items()})
        losses.append(mean_loss(problem, candidate, model, rows, size))
    found = method.average(learnt, candidate.params, problem.base.spec)
    if found is None:
        return None, f"{method.name} has no mean of such add-ons"
    put_values(model, found, method.name)
    loss, mean = mean_loss(problem, candidate, model, rows, size), float(np.mean(losses))
    blind = problem.setup(candidate).task.blind_loss(problem.train.truths)
    if not loss <= mean + BARRIER * (blind or mean):
        return None, f"on training rows their mean loses {loss:.4g}, and the folds {mean:.4g} on average"
    return model, ""


@torch.inference_mode()
def mean_loss(problem: Problem, candidate: Candidate, model: nn.Module, rows: np.ndarray, size: int) -> float:
    """The mean loss of a model over batches of `size` of these training rows, without dropout."""
    task, device = problem.setup(candidate).task, problem.device
    losses = []
    for start in range(0, len(rows), size):
        heartbeat()
        batch = Batch.of(problem.train, [rows[start : start + size]], device.type)
        with device.kernels():
            with device.precision():
                outputs = task.run(model.eval(), batch.tensors)
            losses += [task.loss(*part) for part in batch.per_fold(outputs)]
    return float(torch.stack(losses).mean())


def put_values(model: nn.Module, found: Mapping[str, torch.Tensor], method: str) -> None:
    """Give the trained parameters the values that `average` found.

    Raises:
        PluginError: their names or shapes are not those of the trained parameters, or they are not finite.
    """
    trained = trainable(model)
    odd = min(found.keys() ^ trained.keys(), default="")
    if odd:
        fault = f"it gave no {odd}" if odd in trained else f"it also gave {odd}"
        raise PluginError(f'method "{method}": average() must give exactly the trained parameters, but {fault}.')
    for name, parameter in trained.items():
        value = found[name]
        if value.shape != parameter.shape or not torch.isfinite(value).all():
            raise PluginError(
                f'method "{method}": average() must give {name} finite values of the shape {tuple(parameter.shape)}, '
                f"but gave {tuple(value.shape)}, or some that are not finite."
            )
        parameter.data = value.detach().to(parameter.device, parameter.dtype, copy=True)


def _rows(problem: Problem) -> np.ndarray:
    """The training rows that all models answer, in bucketed order, so that batches need little padding."""
    generator = np.random.default_rng(derive_seed(problem.spec.seed, AVERAGE_ROWS_STREAM))
    rows = generator.permutation(problem.all_rows)[:MOST_ROWS]
    found: np.ndarray = rows[np.argsort(problem.train.extents[rows], kind="stable")]
    return found
