"""Rules about what is saved of a trained model: the file, its size, and the plain model it can be merged into."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.common.seeds import seeded
from autopeft.models.attach import merged, trainable
from autopeft.models.weights_file import read_weights, write_weights
from autopeft.testing.case import CPU, TASK, logits, same, values
from autopeft.testing.rule import BrokenRuleError, rule

if TYPE_CHECKING:
    from autopeft.testing.case import Case

EXACT, MERGED = 1e-5, 1e-4
"""Largest difference of an output after loading, and after merging, which adds in another order."""


@rule()
def loads_what_it_saved(case: Case) -> str | None:
    """A saved add-on, loaded onto a fresh base model, predicts the same as before.

    Whatever training changes must be a trained parameter, or save() must save it and load() put it back. Random
    tensors that do not train come back from the seed, if apply() draws them with torch.
    """
    expected = logits(case.trained, case.batch())
    with tempfile.TemporaryDirectory() as folder, seeded(0):  # peft draws values before it loads any
        write_weights(case.trained, case.method, Path(folder))
        loaded = read_weights(case.base, lambda: case.method, case.defaults, Path(folder))
    difference = float((logits(loaded, case.batch()) - expected).abs().max())
    if not difference <= EXACT:
        raise BrokenRuleError(f"an output differs by {difference:.3g}.", case.defaults)
    return None


@rule()
def weighs_what_is_predicted(case: Case) -> str | None:
    """The number of trained parameters and the size of the saved file are as predicted without weights.

    Budgets are checked on the meta device: there save() must return the same names, shapes and types as with weights.
    """
    estimator = CostEstimator(case.base, TASK, CPU, case.data)
    usage = estimator(case.candidates.default())
    count = sum(parameter.numel() for parameter in trainable(case.trained).values())
    if count != usage.trainable_params:
        seen = f"{count:,} parameters train, but {usage.trainable_params:,} were predicted."
        raise BrokenRuleError(seen, case.defaults)
    with tempfile.TemporaryDirectory() as folder:
        write_weights(case.trained, case.method, Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    if size != (predicted := usage.weights.saved_bytes):
        raise BrokenRuleError(f"the file has {size:,} bytes, but {predicted:,} were predicted.", case.defaults)
    return None


@rule()
def merges_without_a_trace(case: Case) -> str | None:
    """If merge() returns a model, it is the plain base model with the add-on's predictions.

    Return None if the add-on is not a change of weights. merge() gets a whole copy and may write into it.
    """
    before = values(case.trained)
    expected = logits(case.trained, case.batch())
    plain = merged(case.trained, case.method)
    if plain is None:
        return "the method cannot be merged"
    if type(plain) is not type(case.base.module):
        wanted = type(case.base.module).__name__
        raise BrokenRuleError(f"merge() returned a {type(plain).__name__}, not a {wanted}.", case.defaults)
    odd = plain.state_dict().keys() ^ case.base.module.state_dict().keys()
    if odd:
        raise BrokenRuleError(f"{min(odd)} is only in one of the merged and the base model.", case.defaults)
    difference = float((logits(plain, case.batch()) - expected).abs().max())
    if not difference <= MERGED * max(1.0, float(expected.abs().max())):
        raise BrokenRuleError(f"an output of the merged model differs by {difference:.3g}.", case.defaults)
    if not same(values(case.trained), before):
        raise BrokenRuleError("merge() changed the trained model, not only its copy.", case.defaults)
    return None
