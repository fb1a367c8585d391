"""Rules about apply(): it works in the whole space, with and without weights, and draws only from torch's seed."""

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
    """apply() works at the extremes of every dimension, and trains the same with weights and on the meta device.

    Make new tensors on the device of the module they join (`device=parameter.device`), and do not let what you build
    depend on values; handle the smallest and largest sizes that the space allows, or narrow the space. The number that
    trained_params() returns must be exact; without that method the host counts.
    """
    for params in case.corners:
        if _wrong(case, params):
            params = _nearest_to_defaults(case, params, _wrong)
            seen, error = _applies(case, params)
            raise BrokenRuleError(seen, params) from error
    return None


def _wrong(case: Case, params: Params) -> str:
    """What is wrong at these params; empty if nothing is."""
    return _applies(case, params)[0]


def _applies(case: Case, params: Params) -> tuple[str, Exception | None]:
    """What is wrong at these params, and the error if there was one; empty if nothing is."""
    try:
        real = case.attach(params)
        found = logits(real, case.batch())
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}", error
    if not torch.isfinite(found).all():
        return "the model's outputs are not finite.", None
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
        real_shape, meta_shape = (shape.get(first) for shape in shapes)
        return f"{first} is trained as {real_shape} with weights, but as {meta_shape} without.", None
    try:
        trained_params(case.base, case.method, params, real)
    except PluginError as error:
        return str(error), None
    return "", None


def _nearest_to_defaults(case: Case, params: Params, wrong: Callable[[Case, Params], str]) -> Params:
    """Params with the same fault and as many dimensions as possible at their defaults."""
    for name in tuple(params):
        simpler = case.space.nearest({key: value for key, value in params.items() if key != name})
        if simpler != params and wrong(case, simpler):
            params = simpler
    return params


@rule()
def is_the_same_without_what_is_optional(case: Case) -> str | None:
    """An optional dimension changes nothing at its default: candidates without it start from the same values.

    Read it with `params.get(name, default)`, where the default is what the method does without it. Params lack it in
    studies that do not name the dimension, and in winners that are older than it.
    """
    given = {name: dimension.default for name, dimension in case.space.items() if dimension.optional}
    if not given:
        return "the method has no optional dimension"
    plain = case.attach(case.defaults, seed=7)
    for name, value in given.items():
        model = case.attach({**case.defaults, name: value}, seed=7)
        if not same(values(model), values(plain)) or getattr(model, GROUPS) != getattr(plain, GROUPS):
            raise BrokenRuleError(f'"{name}" at its default, {value!r}, is not the same as without it.', case.defaults)
    return None


@rule()
def draws_from_the_seed_alone(case: Case) -> str | None:
    """The same seed gives the same initial values, whatever the state of Python's and NumPy's random numbers.

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
        raise BrokenRuleError(f"{first} started with other values the second time.", case.defaults)
    return None


@rule()
def trains_its_own_alone(case: Case) -> str | None:
    """Only the method's own tensors and the head train; none shares the base's memory, and the loss depends on each.

    Never make a parameter from a base tensor's memory (`nn.Parameter(weight.data)`): set `requires_grad` on the base's
    own parameter, which the host then copies, or clone it. Freeze what the forward pass does not use.
    """
    model, head = case.attach(case.defaults), case.base.spec.head
    frozen = {tensor.untyped_storage().data_ptr() for tensor in case.base.module.state_dict().values()}
    for name, parameter in trainable(model).items():
        if parameter.untyped_storage().data_ptr() in frozen:
            raise BrokenRuleError(f"{name} would train in the memory of the base model.", case.defaults)
    wanted = case.base.head_params
    trained = sum(p.numel() for name, p in trainable(model).items() if of_head(name, head))
    if trained != wanted:
        raise BrokenRuleError(f"{trained:,} parameters of the head train, not {wanted:,}.", case.defaults)
    model.eval()(**TASK.model_inputs(case.batch().tensors)).logits.sum().backward()
    idle = [name for name, parameter in trainable(model).items() if parameter.grad is None]
    if idle:
        raise BrokenRuleError(f"{idle[0]} trains, but the loss does not depend on it.", case.defaults)
    return None
