"""A fold's initial values, for methods that compute them from the fold's own training rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from autopeft.common.containment import heartbeat
from autopeft.common.exceptions import PluginError
from autopeft.common.seeds import INITIAL_VALUES_STREAM, derive_seed, seeded
from autopeft.data.rows_of_tasks import RowsOfTasks
from autopeft.methods.contract import PeftMethod
from autopeft.methods.sharing import SharingMethod, own
from autopeft.methods.training_rows import TrainingRows
from autopeft.models.attach import trainable
from autopeft.tasks.several import SeveralTasks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from autopeft.methods.candidate import Candidate
    from autopeft.methods.contract import ModelSpec
    from autopeft.training.setup import Setup

MOST_BATCHES = 8
"""Most batches, of the training's batch size, that a method is given."""


def initial_values(
    model: nn.Module, candidate: Candidate, spec: ModelSpec, setup: Setup, rows: np.ndarray, stream: int, most: int
) -> dict[str, torch.Tensor]:
    """Initial values, by name, of the parameters for which the candidate's method computes any; on the CPU.

    Memory predictions do not count this. A pass has as many rows as in training, but no gradients: training keeps the
    activations of all layers, this keeps those of one. What a method allocates besides must stay below the difference.

    Args:
        model: with the add-on on, neither packed nor cut.
        candidate: the one with this add-on.
        spec: the model's.
        setup: gives the task, the rows and the device; its `rows` are whole.
        rows: positions of the fold's training rows.
        stream: seeds the draw from `rows`: the fold's number, or another number of the caller's.
        most: rows in a pass.

    Raises:
        PluginError: the method returned anything but finite values of trained parameters.
    """
    if isinstance(setup.rows, RowsOfTasks):
        return _of_each(model, candidate, setup, rows, stream, most)
    method, hyper = candidate.method, candidate.hyper
    if type(method).initial_values is PeftMethod.initial_values:
        return {}
    seed = derive_seed(setup.seed, INITIAL_VALUES_STREAM, stream)
    few = np.random.default_rng(seed).permutation(rows)[: MOST_BATCHES * hyper.batch_size]
    with seeded(seed), torch.no_grad():
        found = method.initial_values(model.eval(), batches_of(setup, few, most), candidate.params, spec)
    _check(found, trainable(model), method.name)
    return {name: value.detach().to("cpu", torch.float32, copy=True) for name, value in found.items()}


def _of_each(
    model: Any, candidate: Candidate, setup: Setup, rows: np.ndarray, stream: int, most: int
) -> dict[str, torch.Tensor]:
    """The same for each task on its own rows; of values that tasks share, those of the first task."""
    task, data, there = setup.task, setup.rows, trainable(model)
    assert isinstance(task, SeveralTasks)
    assert isinstance(data, RowsOfTasks)
    assert isinstance(candidate.method, SharingMethod)
    alone = replace(candidate, method=candidate.method.inner, params=own(candidate.params))
    found: dict[str, torch.Tensor] = {}
    for name, _, few in data.split(rows):
        part = replace(setup, task=task.tasks[name], rows=data.parts[name])
        values = initial_values(model.of(name), alone, task.specs[name], part, few, stream, most)
        found |= {model.prefix(name) + key: value for key, value in values.items()}
    return {name: value for name, value in found.items() if name in there}


def batches_of(setup: Setup, rows: np.ndarray, most: int) -> Iterator[TrainingRows]:
    """The rows in batches of at most `most`, longest first: if memory runs out, it does so at once."""
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
