"""All folds of a trial in one pass: the frozen base runs once over every fold's rows, the add-ons run once per fold.

The rows of the folds are put one behind the other in one batch, fold by fold, so the base model needs to know nothing.
Each trained tensor becomes a stack with one slice a fold, and the modules that own one are mapped over folds and slices
by `torch.func.vmap`. That serves any method whose modules take their rows along the first dimension; `agrees` finds
out whether one does by comparing gradients.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from autopeft.model import FROZEN, trainable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

CONTAINERS = (nn.ParameterDict, nn.ParameterList, nn.ModuleDict, nn.ModuleList)
"""Modules that never run themselves."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Largest difference of a gradient, as a share of the largest gradient, that the precision of the products explains."""


def pack(model: nn.Module, folds: int, *, sites: bool = False) -> nn.Module:
    """Stack what is trained `[…]` → `[folds, …]`, each slice the same, and run its owners once per fold.

    Afterwards the model takes batches of `folds · n` rows, fold by fold.

    Args:
        model: with an add-on on; it is changed.
        folds: slices of every trained tensor.
        sites: map everything a method put in one place as a whole, for methods whose modules read each other's
            tensors. Otherwise only the modules that own trained tensors are mapped, which costs less.
    """
    for owner in _outermost(_owners(model, sites)):
        names = [name for name, parameter in owner.named_parameters() if parameter.requires_grad]
        for name in names:
            place, _, leaf = name.rpartition(".")
            parameter = owner.get_parameter(name)
            stacked = parameter.detach().expand(folds, *parameter.shape).clone()
            owner.get_submodule(place)._parameters[leaf] = nn.Parameter(stacked)
        _run_per_fold(owner, names, folds)
    return model


def fold_slices(sizes: Sequence[int]) -> list[slice]:
    """Where each fold's rows stand in a batch; every fold has the room of the largest, and fills it from the left."""
    room = max(sizes)
    return [slice(index * room, index * room + size) for index, size in enumerate(sizes)]


def rows_of(outputs: Any, part: slice) -> Any:
    """The model outputs of those rows of the batch alone."""
    kept = {name: value[part] for name, value in outputs.items() if isinstance(value, torch.Tensor) and value.ndim}
    return type(outputs)(**kept)


def packable(
    make: Callable[[], nn.Module],
    gradients: Callable[[nn.Module, int | None], Mapping[str, torch.Tensor]],
    folds: int,
    precision: torch.dtype,
) -> bool | None:
    """Which way of packing gives every fold the gradients it has alone: the value for `sites`, or None for neither.

    Args:
        make: makes the model with the add-on on, always the same.
        gradients: of a model for a fold's rows, and nothing left over from before; for all folds' rows, stacked, where
            the fold is None.
        folds: how many.
        precision: of the products.
    """
    for sites in (False, True):
        try:
            if agrees(make, gradients, folds, precision, sites=sites):
                return sites
        except Exception:  # a method's modules may do anything; vmap refuses what it cannot map in many ways
            continue
    return None


def agrees(
    make: Callable[[], nn.Module],
    gradients: Callable[[nn.Module, int | None], Mapping[str, torch.Tensor]],
    folds: int,
    precision: torch.dtype,
    *,
    sites: bool,
) -> bool:
    """Whether every fold's gradients, at values drawn for it alone, are the same packed and by itself."""
    model, packed = make(), pack(make(), folds, sites=sites)
    stacks, alone = trainable(packed), trainable(model)
    if stacks.keys() != alone.keys():
        return False
    generator = torch.Generator().manual_seed(0)
    for stack in stacks.values():  # methods start at zero, where most gradients vanish
        stack.data += 0.02 * torch.randn(stack.shape, generator=generator).to(stack.device)
    together = gradients(packed, None)
    for fold in range(folds):
        for name, parameter in alone.items():
            parameter.data = stacks[name].data[fold].clone()
        expected = gradients(model, fold)
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        if expected.keys() != together.keys() or not 0 < largest < float("inf"):
            return False
        for name, gradient in expected.items():
            if float((together[name][fold] - gradient).abs().max()) > TOLERANCE[precision] * largest:
                return False
    return True


def seconds_of(run: Callable[[], object], times: int = 2) -> float:
    """The shortest of some runs, each until the device is done."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found)


def _owners(module: nn.Module, sites: bool, above: tuple[nn.Module, ...] = ()) -> Iterator[nn.Module]:
    """The modules to map: those that own trained tensors, or all that a method put in one place."""
    placed = sites and any(hasattr(one, FROZEN) for one in above) and not hasattr(module, FROZEN)
    owned: Iterable[nn.Parameter] = module.parameters(recurse=placed)
    if any(parameter.requires_grad for parameter in owned):
        yield next(one for one in reversed((*above, module)) if not isinstance(one, CONTAINERS))
        return
    for child in module.children():
        yield from _owners(child, sites, (*above, module))


def _outermost(owners: Iterable[nn.Module]) -> list[nn.Module]:
    """Each of them once, and none that lies within another."""
    found = {id(owner): owner for owner in owners}
    within = {id(child) for owner in found.values() for child in owner.modules() if child is not owner}
    return [owner for key, owner in found.items() if key not in within]


def _run_per_fold(owner: nn.Module, names: Sequence[str], folds: int) -> None:
    """Replace a module's forward pass by one that maps the old one over the folds."""
    forward, inside = owner.forward, False

    def packed(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        if inside:
            return forward(*args, **kwargs)
        leaves, shape = tree_flatten((args, kwargs))
        per_fold = {i: leaf.unflatten(0, (folds, -1)) for i, leaf in enumerate(leaves) if _has_rows(leaf, folds)}

        def alone(values: dict[str, torch.Tensor], few: dict[int, torch.Tensor]) -> Any:
            args, kwargs = tree_unflatten([few.get(i, leaf) for i, leaf in enumerate(leaves)], shape)
            return functional_call(owner, values, args, kwargs)

        inside = True
        try:
            values: dict[str, torch.Tensor] = {name: owner.get_parameter(name) for name in names}
            result = vmap(alone, randomness="different")(values, per_fold)
        finally:
            inside = False
        return tree_map_only(torch.Tensor, lambda tensor: tensor.flatten(0, 1), result)

    owner.forward = cast("Any", packed)


def _has_rows(value: object, folds: int) -> bool:
    """Whether it can be cut into the folds' rows; what cannot is every fold's alike."""
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) % folds == 0
