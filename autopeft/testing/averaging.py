"""The rule about one add-on in the place of those that folds trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.methods.contract import PeftMethod
from autopeft.testing.case import logits, values
from autopeft.testing.rule import BrokenRuleError, rule

if TYPE_CHECKING:
    from autopeft.testing.case import Case

EXACT = 1e-4
"""Largest difference of an output, as a share of the largest: tensors may be put together in another order."""


@rule()
def averages_what_it_computes(case: Case) -> str | None:
    """average(), where it gives something, gives what is trained, and of equal add-ons one that predicts the same.

    Return tensors of the names and shapes you were given, the head's too, and leave those as they were; None where the
    mean of add-ons is not an add-on of the same size. Where tensors are multiplied, average the products.
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
            raise BrokenRuleError(f"{odd} is in one of the trained and the averaged alone.", case.defaults)
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
        raise BrokenRuleError(f"of two equal add-ons the mean differs by {difference:.3g} in an output.", case.defaults)
    return None
