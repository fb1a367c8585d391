"""The rule about one add-on that replaces those that the folds trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.methods.contract import PeftMethod
from autopeft.testing.case import logits, values
from autopeft.testing.rule import BrokenRuleError, rule

if TYPE_CHECKING:
    from autopeft.testing.case import Case

EXACT = 1e-4
"""Largest difference of an output, as a share of the largest output: tensors may be added in another order."""


@rule()
def averages_what_it_computes(case: Case) -> str | None:
    """If average() returns an add-on, it has the trained tensors, and that of equal add-ons predicts the same.

    Return tensors with the names and shapes that you got, including the head's, and do not change those; return None if
    the mean of add-ons is not an add-on of the same size. If tensors are multiplied, average the products.
    """
    if type(case.method).average is PeftMethod.average:
        return "the method has no mean of add-ons"
    learnt, spec = values(case.trained), case.base.spec
    start = values(case.attach(case.defaults))
    between = case.method.average([dict(start), dict(learnt)], case.defaults, spec)
    found = case.method.average([dict(learnt), dict(learnt)], case.defaults, spec)
    if found is None or between is None:
        return "the method has no mean of add-ons at its defaults"
    for given in (between, found):
        if odd := min(given.keys() ^ learnt.keys(), default=""):
            raise BrokenRuleError(f"{odd} is only in one of the trained and the averaged add-on.", case.defaults)
        for name, value in given.items():
            if value.shape != learnt[name].shape or not torch.isfinite(value).all():
                raise BrokenRuleError(f"{name} has another shape, or is not finite.", case.defaults)
    model = case.attach(case.defaults)
    for name, parameter in model.named_parameters():
        if name in found:
            parameter.data = found[name].clone()
    expected = logits(case.trained, case.batch())
    difference = float((logits(model, case.batch()) - expected).abs().max())
    if not difference <= EXACT * max(1.0, float(expected.abs().max())):
        raise BrokenRuleError(f"the mean of two equal add-ons changes an output by {difference:.3g}.", case.defaults)
    return None
