"""What a fold starts from where its method works that out from the fold's own training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.common.containment import heartbeat
from autopeft.common.exceptions import PluginError
from autopeft.common.seeds import INITIAL_VALUES_STREAM, derive_seed, seeded
from autopeft.methods.contract import PeftMethod
from autopeft.methods.training_rows import TrainingRows
from autopeft.models.attach import trainable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from autopeft.methods.candidate import Candidate
    from autopeft.methods.contract import ModelSpec
    from autopeft.training.setup import Setup

MOST_BATCHES = 8
"""Of the training's size that a method is given."""


def initial_values(
    model: nn.Module, candidate: Candidate, spec: ModelSpec, setup: Setup, rows: np.ndarray, stream: int, most: int
) -> dict[str, torch.Tensor]:
    """The first values, by name, of those parameters for which the candidate's method has any; on the CPU.

    No prediction of memory counts this. A pass has as many rows as one of the training, and no gradients: while the
    training keeps the activations of all layers, this keeps those of one. What a method makes beside that has to stay
    below the difference.

    Args:
        model: with the add-on on, neither packed nor cut.
        candidate: whose add-on that is.
        spec: the model's.
        setup: gives the task, the rows and the device; its `rows` are whole.
        rows: positions of those that the fold trains on.
        stream: the fold's number, or another number of the caller's own, to draw from `rows` by.
        most: of them in a pass.

    Raises:
        PluginError: the method gave something else than values of what is trained.
    """
    method, hyper = candidate.method, candidate.hyper
    if type(method).initial_values is PeftMethod.initial_values:
        return {}
    seed = derive_seed(setup.seed, INITIAL_VALUES_STREAM, stream)
    few = np.random.default_rng(seed).permutation(rows)[: MOST_BATCHES * hyper.batch_size]
    with seeded(seed), torch.no_grad():
        found = method.initial_values(model.eval(), _batches(setup, few, most), candidate.params, spec)
    _check(found, trainable(model), method.name)
    return {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in found.items()}


def _batches(setup: Setup, rows: np.ndarray, most: int) -> Iterator[TrainingRows]:
    """The rows, at most so many in a batch, the longest first: memory is short at once, or not at all."""
    longest_first = rows[np.argsort(-setup.rows.extents[rows], kind="stable")]
    for start in range(0, len(rows), most):
        tensors = setup.rows.batch(longest_first[start : start + most], setup.device.type)

        def run(model: nn.Module, tensors: Mapping[str, torch.Tensor] = tensors) -> object:
            heartbeat()
            with torch.no_grad(), setup.device.kernels(), setup.device.precision():
                return setup.task.run(model, tensors)

        yield TrainingRows(tensors, run)


def _check(found: Mapping[str, torch.Tensor], trained: Mapping[str, nn.Parameter], method: str) -> None:
    for name, value in found.items():
        fault = ""
        if name not in trained:
            fault = f"must name parameters that are trained, but named {name!r}"
        elif not isinstance(value, torch.Tensor) or value.shape != trained[name].shape:
            given = tuple(value.shape) if isinstance(value, torch.Tensor) else repr(value)
            fault = f"must give {name} a tensor of the shape {tuple(trained[name].shape)}, but gave {given}"
        elif not torch.isfinite(value).all():
            fault = f"must give finite values, but those of {name} are not"
        if fault:
            raise PluginError(f'method "{method}": initial_values() {fault}.')
