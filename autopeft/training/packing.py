"""All folds of a trial in one pass: the frozen base runs once over every fold's rows, the add-ons run once per fold.

The rows of the folds are put one after another in one batch, fold by fold, so the base model need not know of folds.
Each trained tensor becomes a stack with one slice a fold, and the modules that own one are mapped over folds and slices
by `torch.func.vmap`, or run by their own `forward_packed` where they have one. This works for any method whose modules
take rows along the first dimension; `agrees` checks that by the gradients.

The number of slices is that of the stacks when the model runs, so the folds of several candidates (`cohort`) are just
more slices. What multiplies a trained tensor may differ by slice (`factors`), as may dropout (`SliceDropout`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.func import vmap
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from autopeft.models.marks import FROZEN
from autopeft.training.slice_dropout import SliceDropout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


CONTAINERS = (nn.ParameterDict, nn.ParameterList, nn.ModuleDict, nn.ModuleList)
"""Modules that never run themselves."""


def pack(
    model: nn.Module, folds: int, *, sites: bool = False, factors: Mapping[str, torch.Tensor] | None = None
) -> nn.Module:
    """Stack every trained tensor, `[…]` → `[folds, …]` with equal slices, and run its owner once per fold.

    Afterwards the model takes batches of `folds · n` rows, fold by fold.

    Args:
        model: with an add-on on; it is changed.
        folds: slices of every trained tensor.
        sites: map everything a method put in one place as a whole, for methods whose modules read each other's
            tensors. Otherwise only the modules that own trained tensors are mapped, which costs less.
        factors: `[folds]` by the name of a trained tensor whose slices they multiply in each pass; read when it runs.
    """
    whole = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for owner in _outermost(_owners(model, sites)):
        names = {name: whole[id(p)] for name, p in owner.named_parameters() if p.requires_grad}
        for name in names:
            place, _, leaf = name.rpartition(".")
            parameter = owner.get_parameter(name)
            stacked = parameter.detach().expand(folds, *parameter.shape).clone()
            owner.get_submodule(place)._parameters[leaf] = nn.Parameter(stacked)
        _run_per_fold(owner, names, {} if factors is None else factors)
    return model


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
    """Each owner once, without those inside another."""
    found = {id(owner): owner for owner in owners}
    within = {id(child) for owner in found.values() for child in owner.modules() if child is not owner}
    return [owner for key, owner in found.items() if key not in within]


def _run_per_fold(owner: nn.Module, names: Mapping[str, str], factors: Mapping[str, torch.Tensor]) -> None:
    """Replace a module's forward pass by one that maps the old one over the folds.

    Args:
        owner: the module.
        names: of its trained tensors, with their names in the whole model.
        factors: see `pack`.
    """
    short = _without_mapping(owner, set(names)) if "forward" not in vars(owner) else None
    forward = owner.forward
    places = [(owner.get_submodule(name.rpartition(".")[0])._parameters, name.rpartition(".")[2]) for name in names]

    def packed(*args: Any, **kwargs: Any) -> Any:
        own: list[torch.Tensor] = [parameters[name] for parameters, name in places]  # type: ignore[misc]  # they are there
        stacks = [_times(stack, factors.get(name)) for stack, name in zip(own, names.values(), strict=True)]
        folds = len(own[0])
        try:
            if short and len(args) == 1 and not kwargs and args[0].ndim > 1 and _has_rows(args[0], folds):
                _put(places, stacks)
                return short(args[0], folds)
            return _mapped(forward, places, stacks, owner, args, kwargs)
        finally:
            _put(places, own)

    owner.forward = cast("Any", packed)


Places = list[tuple[dict[str, Any], str]]
"""Where tensors are: a module's table of them, and the name there."""


def _put(places: Places, tensors: Sequence[torch.Tensor]) -> None:
    for (table, name), tensor in zip(places, tensors, strict=True):
        table[name] = tensor


def _times(stack: torch.Tensor, factor: torch.Tensor | None) -> torch.Tensor:
    return stack if factor is None else stack * factor.view(-1, *[1] * (stack.ndim - 1))


def _mapped(
    forward: Callable[..., Any],
    places: Places,
    stacks: Sequence[torch.Tensor],
    owner: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """A forward pass mapped over the slices of the `stacks`, and of what else there is one of for each slice."""
    folds = len(stacks[0])
    dropouts = [module for module in owner.modules() if isinstance(module, SliceDropout)]
    rates = [module.rates for module in dropouts]
    all_places: Places = [*places, *((module._buffers, "rates") for module in dropouts)]
    leaves, shape = tree_flatten((args, kwargs))
    rows = [index for index, leaf in enumerate(leaves) if _has_rows(leaf, folds)]

    def alone(*given: Any) -> Any:
        """The old forward pass for one fold: its slices replace the stacks, its rows replace all rows."""
        few = leaves.copy()
        for index, value in zip(rows, given[len(all_places) :], strict=True):
            few[index] = value
        _put(all_places, given[: len(all_places)])
        args, kwargs = tree_unflatten(few, shape)
        return forward(*args, **kwargs)

    try:
        per_fold = [leaves[index].unflatten(0, (folds, -1)) for index in rows]
        result = vmap(alone, randomness="different")(*stacks, *rates, *per_fold)
    finally:
        _put(all_places[len(places) :], rates)
    return tree_map_only(torch.Tensor, lambda tensor: tensor.flatten(0, 1), result)


def _without_mapping(owner: nn.Module, stacked: set[str]) -> Callable[[torch.Tensor, int], torch.Tensor] | None:
    """A forward pass for all folds' rows at once, the module's own or a known one; None: the module must be mapped."""
    if "forward_packed" in vars(owner) or hasattr(type(owner), "forward_packed"):  # not through a wrapper
        return cast("Any", owner).forward_packed  # type: ignore[no-any-return]  # its caller gives the type
    return partial(STACKED[type(owner)], owner, stacked) if type(owner) in STACKED else None


def _linear(owner: nn.Linear, stacked: set[str], x: torch.Tensor, folds: int) -> torch.Tensor:
    """`nn.Linear` with a weight or a bias, or both, of its own for every fold."""
    if "weight" in stacked:
        given = torch.bmm(x.reshape(folds, -1, x.shape[-1]), owner.weight.mT)
    else:
        given = nn.functional.linear(x, owner.weight).reshape(folds, -1, len(owner.weight))
    if owner.bias is not None:
        given = given + _beside(owner.bias, "bias" in stacked, given).to(given.dtype)  # as in a fused product
    return given.reshape(*x.shape[:-1], given.shape[-1])  # a padded weight has other sizes than its module


def _layer_norm(owner: nn.LayerNorm, stacked: set[str], x: torch.Tensor, folds: int) -> torch.Tensor:
    """`nn.LayerNorm` likewise."""
    given = nn.functional.layer_norm(x, owner.normalized_shape, None, None, owner.eps)
    given = given.reshape(folds, -1, *x.shape[1:])
    if owner.weight is not None:
        given = given * _beside(owner.weight, "weight" in stacked, given)
    if owner.bias is not None:
        given = given + _beside(owner.bias, "bias" in stacked, given)
    return given.reshape(x.shape)


def _beside(values: torch.Tensor, stacked: bool, rows: torch.Tensor) -> torch.Tensor:
    """The values, shared or a stack `[folds, …]`, in a shape that broadcasts over the rows `[folds, …, …]`."""
    if not stacked:
        return values
    return values.reshape(len(values), *[1] * (rows.ndim - values.ndim), *values.shape[1:])


STACKED: dict[type[nn.Module], Callable[..., torch.Tensor]] = {nn.Linear: _linear, nn.LayerNorm: _layer_norm}
"""Modules that need no mapping, which can cost several times what their operations do."""


def _has_rows(value: object, folds: int) -> bool:
    """Whether a value can be cut into the folds' rows; one that cannot is the same for every fold."""
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) % folds == 0
