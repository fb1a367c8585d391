"""Rules about apply(): the same with weights and without, all over the space, and drawn from torch's seed alone."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.common.exceptions import PluginError
from autopeft.models.attach import trainable, trained_params
from autopeft.models.marks import GROUPS
from autopeft.testing.case import TASK, logits, of_head, same, values
from autopeft.testing.process import guarded
from autopeft.testing.rule import BrokenRuleError, rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.common.params import Params
    from autopeft.testing.case import Case


@rule(gets_on=True)
def applies_in_every_corner(case: Case) -> str | None:
    """apply() works at the extremes of every dimension, on weights and on the meta device, where it trains the same.

    Make new tensors on the device of the module they join (`device=parameter.device`), and let nothing that is built
    depend on values; take care of the smallest and largest sizes the space allows, or narrow the space. What
    trained_params() says must be exact; without it the host counts.
    """
    for params in case.corners:
        if _wrong(case, params):
            params = _nearest_to_defaults(case, params, _wrong)
            seen, error = _applies(case, params)
            raise BrokenRuleError(seen, params) from error
    return None


def _wrong(case: Case, params: Params) -> str:
    """What is wrong at these params; empty where nothing is."""
    return _applies(case, params)[0]


def _applies(case: Case, params: Params) -> tuple[str, Exception | None]:
    """What is wrong at these params, and the error if it is one; empty where nothing is."""
    try:
        real = case.attach(params)
        found = logits(real, case.batch())
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}", error
    if not torch.isfinite(found).all():
        return "the outputs of the model are not finite.", None
    try:
        meta = case.attach(params, meta=True)
    except Exception as error:
        return f"on the meta device it raised {type(error).__name__}: {error}", error
    left = [name for name, tensor in (*meta.named_parameters(), *meta.named_buffers()) if tensor.device.type != "meta"]
    if left:
        return f"on the meta device it made {left[0]} on the device {meta.get_parameter(left[0]).device}.", None
    shapes = [{name: tuple(p.shape) for name, p in trainable(model).items()} for model in (real, meta)]
    if shapes[0] != shapes[1]:
        first = min(name for name, _ in shapes[0].items() ^ shapes[1].items())
        return f"{first} is trained as {shapes[0].get(first)} on weights, but as {shapes[1].get(first)} without.", None
    try:
        trained_params(case.base, case.method, params, real)
    except PluginError as error:
        return str(error), None
    return "", None


def _nearest_to_defaults(case: Case, params: Params, wrong: Callable[[Case, Params], str]) -> Params:
    """The same fault with as many dimensions as can be at their defaults."""
    for name in tuple(params):
        simpler = case.space.nearest({key: value for key, value in params.items() if key != name})
        if simpler != params and wrong(case, simpler):
            params = simpler
    return params


@rule()
def is_the_same_without_what_is_optional(case: Case) -> str | None:
    """An optional dimension changes nothing at its default: candidates without it start from the same values.

    Ask for it with `params.get(name, default)`, and let that default be what the method does without it. Studies that
    do not name the dimension, and winners that are older than it, have params without it.
    """
    given = {name: dimension.default for name, dimension in case.space.items() if dimension.optional}
    if not given:
        return "the method has no optional dimension"
    plain = case.attach(case.defaults, seed=7)
    for name, value in given.items():
        model = case.attach({**case.defaults, name: value}, seed=7)
        if not same(values(model), values(plain)) or getattr(model, GROUPS) != getattr(plain, GROUPS):
            raise BrokenRuleError(f'"{name}" at its default, {value!r}, is not as without.', case.defaults)
    return None


@rule()
def draws_from_the_seed_alone(case: Case) -> str | None:
    """The same seed gives the same initial values, whatever Python's and NumPy's random numbers are.

    Draw initial values with torch, from its global generator; the host seeds it before it calls apply().
    """
    drawn = []
    changes: list[str] = []  # this rule's own doing
    with guarded([], changes):
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            drawn.append(values(case.attach(case.defaults, seed=7)))
    if not same(*drawn):
        first = next(name for name, tensor in drawn[0].items() if not torch.equal(tensor, drawn[1][name]))
        raise BrokenRuleError(f"{first} started from other values the second time.", case.defaults)
    return None


@rule()
def trains_its_own_alone(case: Case) -> str | None:
    """What trains is the method's own and the head: new tensors all, and each of them is reached by the loss.

    Never make a parameter of a base tensor's memory (`nn.Parameter(weight.data)`): require gradients of the base's own
    parameter, of which the host then makes a private copy, or clone it. Freeze what the forward pass does not use.
    """
    model, head = case.attach(case.defaults), case.base.spec.head
    frozen = {tensor.untyped_storage().data_ptr() for tensor in case.base.module.state_dict().values()}
    for name, parameter in trainable(model).items():
        if parameter.untyped_storage().data_ptr() in frozen:
            raise BrokenRuleError(f"{name} would be trained in the memory of the base model.", case.defaults)
    wanted = case.base.head_params
    trained = sum(p.numel() for name, p in trainable(model).items() if of_head(name, head))
    if trained != wanted:
        raise BrokenRuleError(f"of the head, {trained:,} parameters train and not {wanted:,}.", case.defaults)
    model.eval()(**TASK.model_inputs(case.batch().tensors)).logits.sum().backward()
    idle = [name for name, parameter in trainable(model).items() if parameter.grad is None]
    if idle:
        raise BrokenRuleError(f"{idle[0]} is to be trained, but the loss does not depend on it.", case.defaults)
    return None
