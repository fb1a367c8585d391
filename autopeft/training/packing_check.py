"""Whether folds can be packed: the gradients must be the same, and no fold's may depend on another's rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from autopeft.common import machine
from autopeft.models.attach import trainable
from autopeft.training.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from autopeft.training.batch import Batch


TOLERANCE = {torch.float32: 5e-4, torch.bfloat16: 1e-1, torch.float16: 2e-2}
"""Largest difference of a gradient, as a share of the largest gradient, that the precision of the products explains.

In float32 up to 1.2e-4 was seen where a head normalises states that barely differ, as ModernBERT's does for choices.
In bfloat16 up to 0.04 was seen on an H100 with a mixture of methods on a model of BERT-base size, and 0.02 with others.
float16 has three binary digits more.
"""


NOISE = 10.0
"""How far a gradient may move when other folds' rows change, in multiples of how far it moves between two runs on the
same rows (on a CPU not at all).
"""


def packable(
    make: Callable[[], nn.Module],
    gradients: Callable[[nn.Module, Batch], Mapping[str, torch.Tensor]],
    batch: Batch,
    precision: torch.dtype,
) -> bool | None:
    """Which way of packing gives every fold the gradients it has alone: the value for `sites`, or None for neither.

    Args:
        make: makes the model with the add-on on, always the same.
        gradients: returns those of a model's trained tensors for a batch, with nothing left over from before.
        batch: a few rows of each fold, ideally no row twice.
        precision: of the products.
    """
    for sites in (False, True):
        try:
            if agrees(make, gradients, batch, precision, sites=sites):
                return sites
        except Exception as error:  # a method's modules may do anything; vmap refuses what it cannot map in many ways
            if machine.fault(error):  # which says nothing about the method
                raise
    return None


def agrees(
    make: Callable[[], nn.Module],
    gradients: Callable[[nn.Module, Batch], Mapping[str, torch.Tensor]],
    batch: Batch,
    precision: torch.dtype,
    *,
    sites: bool,
) -> bool:
    """Whether every fold's gradients, at values drawn for it alone, are the same packed and alone.

    Two checks. The gradients must agree within the precision of the products. And they must not move when other folds'
    rows change: in bfloat16 a method that mixes in a little of those would pass the first check.
    """
    folds = len(batch.sizes)
    model, packed = make(), pack(make(), folds, sites=sites)
    stacks, alone = trainable(packed), trainable(model)
    if stacks.keys() != alone.keys():
        return False
    generator = torch.Generator().manual_seed(0)
    for stack in stacks.values():  # methods start at zero, where most gradients vanish
        stack.data += 0.02 * torch.randn(stack.shape, generator=generator).to(stack.device)
    together = gradients(packed, batch)
    for fold in range(folds):
        for name, parameter in alone.items():
            parameter.data = stacks[name].data[fold].clone()
        expected = gradients(model, batch.of_fold(fold))
        if expected.keys() != together.keys() or not alike(expected, together, fold, precision):
            return False
    again = gradients(packed, batch)  # some GPU kernels add in no fixed order
    noise = {name: NOISE * float((again[name] - gradient).abs().max()) for name, gradient in together.items()}
    for fold in range(folds):
        moved = gradients(packed, batch.keeping(fold))
        if any(not _close(moved[name][fold], together[name][fold], noise[name]) for name in together):
            return False
    return True


def alike(
    alone: Mapping[str, torch.Tensor], together: Mapping[str, torch.Tensor], fold: int, precision: torch.dtype
) -> bool:
    """Whether a fold's gradients are those of its slices, within the precision of the products."""
    largest = max(float(gradient.abs().max()) for gradient in alone.values())
    slight = NOISE_FLOOR * max(float(gradient.norm()) for gradient in alone.values())
    if not 0 < largest < float("inf"):
        return False
    for name, gradient in alone.items():
        off, norm = together[name][fold] - gradient, float(gradient.norm())
        if (
            float(off.abs().max()) > TOLERANCE[precision] * largest
            or float(off.norm()) > TENSOR_TOLERANCE * norm > TENSOR_TOLERANCE * slight
        ):
            return False
    return True


def _close(moved: torch.Tensor, still: torch.Tensor, noise: float) -> bool:
    return torch.equal(moved, still) or float((moved - still).abs().max()) <= noise


def seconds_of(run: Callable[[], object], times: int = 2) -> float:
    """Time of the fastest of several runs, each measured until the device is done."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found)


TENSOR_TOLERANCE, NOISE_FLOOR = 0.5, 1e-3
"""How far a tensor's gradient may be off, as a share of its norm; and the share of the largest norm below which it may
be mere rounding, and is not checked. A gradient of another fold's rows would be off by more than 1.
"""
