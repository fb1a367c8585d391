"""The rule about initial values that are computed from training rows."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.common.seeds import seeded
from autopeft.methods.contract import PeftMethod
from autopeft.testing.case import CPU, ROWS, TASK, same
from autopeft.testing.process import guarded
from autopeft.testing.rule import BrokenRuleError, rule
from autopeft.training.initial_values import initial_values
from autopeft.training.setup import Setup

if TYPE_CHECKING:
    from torch import nn

    from autopeft.common.params import Params
    from autopeft.testing.case import Case


@rule()
def starts_from_its_rows_alone(case: Case) -> str | None:
    """initial_values() gives the same for the same rows, only for trained parameters, and leaves the model as it was.

    Use only the batches that it gets, the params and torch's random numbers, which the host seeds; return new tensors
    instead of writing into the model's, and remove the hooks you put on. Scores cannot be repeated if a fold starts
    with other values the second time.
    """
    if type(case.method).initial_values is PeftMethod.initial_values:
        return "every fold starts with the values of apply()"
    for params in case.corners:
        found: list[dict[str, torch.Tensor]] = []
        changes: list[str] = []  # this rule's own doing
        with guarded([], changes):
            for seed in (1, 2):
                random.seed(seed)
                np.random.seed(seed)
                model = case.attach(params)
                before = _state(model)
                found.append(_values(case, model, params))
                if seen := _changed(before, _state(model)):
                    raise BrokenRuleError(f"it changed {seen} of the model.", params)
        if not same(*found):
            first = next((name for name, value in found[0].items() if not torch.equal(value, found[1][name])), "names")
            raise BrokenRuleError(f"{first} would start with other values the second time.", params)
    return None


def _values(case: Case, model: nn.Module, params: Params) -> dict[str, torch.Tensor]:
    """The values that a fold would start with."""
    candidate = case.candidates.candidate(params, case.candidates.training.defaults())
    setup = Setup(TASK, case.data, (), CPU, TASK.metric(None), seed=0)
    with seeded(0):
        return initial_values(model, candidate, case.base.spec, setup, np.arange(2 * ROWS), stream=0, most=ROWS)


def _state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every tensor, and how many hooks each module has."""
    tensors = {name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    hooks = {
        f"the hooks of {name or 'the top module'}": torch.tensor(
            [len(module._forward_hooks), len(module._forward_pre_hooks)]
        )
        for name, module in model.named_modules()
    }
    return {**tensors, **hooks}


def _changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> str:
    """The name of the first tensor or hooks that have changed; empty if none has."""
    gone = before.keys() ^ after.keys()
    return min(gone, default="") or next((name for name in before if not torch.equal(before[name], after[name])), "")
