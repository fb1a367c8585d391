"""Predicted against measured peak memory of a training step, for every kind of task and every method that supports it.

A BERT of MiniLM's size with random weights, a ViT of that size for images or both for pairs, and a batch of each kind's
own example rows, its texts made several times as long. The truth is the allocator's record (torch.profiler), as in
`memory_prediction.py`.

    python benchmarks/memory_by_kind.py
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna  # noqa: F401  # before any model is there: an import that fails in it keeps its stack, and a model there
import pandas as pd
import transformers
from memory_prediction import measured_peak

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.models.architecture import describe
from autopeft.models.base import BaseModel
from autopeft.models.device import Device
from autopeft.tasks.registry import find_task, task_kinds
from autopeft.testing.task_case import TaskCase
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.learner import make_optimizer, training_step

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

ROWS, TIMES = 16, 8
CPU = Device("cpu", None)
SIZES = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12, "num_hidden_layers": 6}
TEXTS = {**SIZES, "vocab_size": 30_522, "pad_token_id": 0}
IMAGES = {"image_size": 16, "patch_size": 4}
TOWERS = {
    "vision_config": {"model_type": "dinov2", **SIZES, **IMAGES},
    "text_config": {"model_type": "bert", **TEXTS},
    "projection_dim": 256,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kind", help="that one alone")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    print("| kind | candidates | median error | worst | of |\n|---|---|---|---|---|")
    for kind in [arguments.kind] if arguments.kind else sorted(task_kinds()):
        errors = {name: error for name in discover().methods if (error := error_of(kind, name)) is not None}
        worst = max(errors, key=lambda name: abs(errors[name]))
        middle = statistics.median(map(abs, errors.values()))
        print(f"| {kind} | {len(errors)} | {middle:.2%} | {errors[worst]:+.2%} | {worst} |", flush=True)


def longer(cell: Any) -> Any:
    """A text several times as long; what is no text stays."""
    return " ".join([cell] * TIMES) if isinstance(cell, str) and " " in cell else cell


def error_of(kind: str, name: str) -> float | None:
    """How far the prediction is off for a method's default; None where it does not support the kind."""
    case, method = TaskCase(find_task(kind)), discover().methods[name]
    inputs = [key for key in case.task.inputs if key not in ("context", "question")]  # answers stand at places in them
    case.rows[inputs] = case.rows[inputs].map(longer)
    case.rows = pd.concat([case.rows] * (1 + ROWS // len(case.rows)), ignore_index=True)
    data = case.data
    model = make_model(case)
    missing = None if case.task.new_head else ()  # a language model brings its head
    spec = describe(model, kind, case.task.peft_task_type, missing, new_head=case.task.new_head)
    if not method.supports(spec):
        return None
    base = BaseModel(model.requires_grad_(False), None, spec)
    candidate = CandidateSpace.build([method], spec, {}, ())[name].default()
    candidate = replace(candidate, hyper=replace(candidate.hyper, batch_size=ROWS))

    def make_step(module: torch.nn.Module) -> Callable[[Any], object]:
        optimizer = make_optimizer(module, candidate.hyper)
        callback = method.callback(module, candidate.params, spec)
        if callback:
            callback.start(total_steps=100)
        return lambda tensors: training_step(module, optimizer, [Batch(tensors, (ROWS,))], case.task, CPU, callback)

    longest = np.resize(np.argsort(-data.lengths, kind="stable")[:1], ROWS)
    predicted = CostEstimator(base, case.task, CPU, data).predict(candidate, Execution(ROWS)).peak
    return predicted / measured_peak(base, candidate, make_step, data.batch(longest), "cpu") - 1


def make_model(case: TaskCase) -> torch.nn.Module:
    """With random weights, of the size of MiniLM."""
    options = {"AutoTokenizer": TEXTS, "AutoImageProcessor": {**SIZES, **IMAGES}}.get(case.task.processor, TOWERS)
    config = transformers.AutoConfig.for_model(case.family, **options, **case.task.config(case.labels))
    made: torch.nn.Module = getattr(transformers, case.task.auto_class).from_config(config)
    case.task.adapt(made)
    return made


if __name__ == "__main__":
    main()
