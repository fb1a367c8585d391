"""Rules about how trials run: folds packed into one pass, predicted memory, and an unchanged process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory.peak import measure
from autopeft.common.seeds import seeded
from autopeft.methods.contract import PeftMethod
from autopeft.models.attach import merged, trainable
from autopeft.models.modes import train_mode
from autopeft.testing import process, tiny
from autopeft.testing.case import CPU, TASK
from autopeft.testing.rule import BrokenRuleError, rule
from autopeft.testing.tiny import blank_rows
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.learner import Learner
from autopeft.training.packing_check import agrees, packable
from autopeft.training.step import backward

if TYPE_CHECKING:
    from torch import nn

    from autopeft.data.encoded import Encoded
    from autopeft.testing.case import Case

MEMORY_ERROR, MEMORY_SLACK = 0.06, 2**15
"""How far a prediction may be off: as a share of what was measured, and in bytes, for models as small as these."""


@rule()
def packs_alike_everywhere(case: Case) -> str | None:
    """If folds can be packed at the defaults, each fold has the same gradients as alone at other params too.

    The host tries once in a study whether a method's folds can be packed. Modules must work on each row by itself, with
    the rows along the first dimension, at all params; otherwise bring a callback, and folds are not packed.
    """
    if type(case.method).callback is not PeftMethod.callback:
        return "a method with a callback is not packed"
    sites = packable(lambda: case.attach(case.defaults), _gradients, _rows(case), torch.float32)
    if sites is None:
        return "the folds train one after the other"
    others = case.corners[1:]
    if not others:
        return None
    params = others[tiny.ALL_FAMILIES.index(case.family) % len(others)]  # each family tries another one
    try:
        alike = agrees(lambda: case.attach(params), _gradients, _rows(case), torch.float32, sites=sites)
    except Exception as error:
        raise BrokenRuleError(f"packed folds raised {type(error).__name__}: {error}", params) from error
    if not alike:
        raise BrokenRuleError("the gradients of a packed fold differ from those it has alone.", params)
    return None


def _rows(case: Case) -> Batch:
    return Batch.of(case.data, [np.arange(3), np.arange(3, 8)], "cpu")


def _gradients(model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    backward(model.eval(), batch, TASK, CPU)
    found = {name: p.grad.detach() for name, p in trainable(model).items() if p.grad is not None}
    model.zero_grad()
    return found


@rule()
def memory_is_predicted(case: Case) -> str | None:
    """The peak memory of a training step is within 6% of the prediction that was made without weights.

    Make no tensor whose size depends on values, and use no memory that PyTorch does not see (such as NumPy's); a
    callback must allocate what it keeps in start().
    """
    candidate, rows = case.candidates.default(), 16
    data, tensors = _longest(case, rows)
    cost_estimator = CostEstimator(case.base, TASK, CPU, data)
    predicted = cost_estimator.predict(candidate, Execution(rows)).peak
    model = case.attach(case.defaults)
    train_mode(model)
    callback = case.method.callback(model, case.defaults, case.base.spec)
    learner = Learner(model, candidate.hyper, rows, callback=callback)
    learner.take_turn()
    others = (*tensors.values(), *learner.kept_tensors())
    with seeded(0):
        real = measure(lambda: learner.step([Batch(tensors, (rows,))], TASK, CPU), model, others=others)
    if abs(predicted - real) > MEMORY_ERROR * real + MEMORY_SLACK:
        seen = f"a step took {real:,} bytes, but {predicted:,} were predicted ({predicted / real - 1:+.1%})."
        raise BrokenRuleError(seen, case.defaults)
    return None


def _longest(case: Case, rows: int, length: int = 24) -> tuple[Encoded, dict[str, torch.Tensor]]:
    """Rows all as long as the longest, and a batch of them."""
    if not case.data.axis:
        return case.data, case.data.batch(np.arange(rows))
    tensors = tiny.batch(rows, length)
    tensors["input_ids"] = torch.full((rows, length), tiny.FIRST_WORD).index_fill_(
        1, torch.tensor([length - 1]), tiny.END
    )
    tensors["attention_mask"] = torch.ones_like(tensors["input_ids"])
    tensors["input_ids"][0, -2:] = torch.tensor([tiny.END, tiny.PAD])  # some models drop a mask that hides nothing
    tensors["attention_mask"][0, -1] = 0
    return blank_rows(np.full(rows, length)), tensors


@rule()
def leaves_the_process_as_it_was(case: Case) -> str | None:
    """No call of the method changes PyTorch's settings, random numbers or other people's classes.

    Change instances, never classes (no `type(module).forward = …`); draw random numbers only in apply() and in forward
    passes; restore what must be changed for a while.
    """
    method, base = case.method, case.base
    changes: list[str] = []
    with process.guarded([base.module], changes):
        method.supports(base.spec)
        space = method.search_space(base.spec)
        method.training_space(base.spec)
        model = case.attach(space.defaults())
        case.attach(space.defaults(), meta=True)
        with seeded(0):
            case.learner(model, case.defaults, 1).step([case.batch()], TASK, CPU)
        method.save(model)
        merged(model, method)
    if found := [*case.left_changed, *changes]:
        raise BrokenRuleError(f"this was changed: {', '.join(dict.fromkeys(found))}.", case.defaults)
    return None
