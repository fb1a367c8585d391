"""Predicted against measured peak memory of a training step, for every kind of task and every method that supports it.

A BERT of MiniLM's size with random weights, a ViT of that size for images or both for pairs, and a batch of each kind's
own example rows, its texts made several times as long. The truth is the allocator's record (torch.profiler), as in
`memory_prediction.py`.

    python benchmarks/memory_by_kind.py
    python benchmarks/memory_by_kind.py --kinds causal-lm,seq2seq --candidates 24    # drawn, on several model types
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
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
from autopeft.testing.task_case import TaskCase, families_of
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.learner import make_optimizer
from autopeft.training.step import training_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from autopeft import ModelSpec, PeftMethod

ROWS, TIMES = 16, 8
"""Of a batch, and how many times as long as the example's the texts are, for defaults."""

CPU = Device("cpu", None)
SIZES = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12, "num_hidden_layers": 6}
TEXTS = {**SIZES, "vocab_size": 30_522, "pad_token_id": 0}
IMAGES = {"image_size": 16, "patch_size": 4}
TOWERS = {
    "vision_config": {"model_type": "dinov2", **SIZES, **IMAGES},
    "text_config": {"model_type": "bert", **TEXTS},
    "projection_dim": 256,
}

OPTIONS = {"AutoTokenizer": TEXTS, "AutoImageProcessor": {**SIZES, **IMAGES}}
"""Of a model for each processor; else `TOWERS`."""

WIDTH = {"hidden_size": 192, "num_attention_heads": 6, "num_hidden_layers": 4, "vocab_size": 8192, "pad_token_id": 0}
GROUPED = {**WIDTH, "intermediate_size": 512, "num_key_value_heads": 2, "head_dim": 32}
TWO_STACKS = {
    "d_model": 192,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 768,
    "decoder_ffn_dim": 768,
    "max_position_embeddings": 512,
    "vocab_size": 8192,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "eos_token_id": 3,
}
FAMILIES: dict[str, dict[str, dict[str, Any]]] = {
    "causal-lm": {
        "llama": GROUPED,
        "qwen3": GROUPED,
        "gpt2": {"n_embd": 192, "n_head": 6, "n_layer": 4, "vocab_size": 8192, "pad_token_id": 0},
        "gemma2": GROUPED,
    },
    "seq2seq": {
        "t5": {"d_model": 192, "d_kv": 32, "d_ff": 512, "num_layers": 3, "num_heads": 6, "vocab_size": 8192},
        "bart": TWO_STACKS,
        "marian": TWO_STACKS,
    },
}
"""Model types that candidates of a kind are drawn on, and their sizes."""

BATCHES, LENGTHS = (4, 8, 16, 32), (1, 4, 12)
"""Rows of a batch, and how many times as long as the example's the texts are, of candidates that are drawn."""

POSITIONS = 256
"""Tokens of a row, at most, of these."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kinds", type=lambda names: names.split(","), help="these alone")
    parser.add_argument("--candidates", type=int, help="draw so many of each kind, on several model types")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    kinds = arguments.kinds or sorted(FAMILIES if arguments.candidates else task_kinds())
    print("| kind | candidates | median error | worst | the worst candidate |\n|---|---:|---:|---:|---|")
    for kind in kinds:
        errors = dict(drawn(kind, arguments.candidates) if arguments.candidates else defaults(kind))
        worst = max(errors, key=lambda name: abs(errors[name]))
        middle = statistics.median(map(abs, errors.values()))
        print(f"| `{kind}` | {len(errors)} | {middle:.2%} | {errors[worst]:+.2%} | {worst} |", flush=True)


def defaults(kind: str) -> Iterator[tuple[str, float]]:
    """How far the prediction is off for every method's default."""
    for name, method in discover().methods.items():
        case = TaskCase(find_task(kind))
        model = make_model(case, case.family, OPTIONS.get(case.task.processor, TOWERS))
        if (error := error_of(case, model, method, rows=ROWS, times=TIMES)) is not None:
            yield f"`{name}`", error


def drawn(kind: str, count: int) -> Iterator[tuple[str, float]]:
    """The same for candidates whose settings are drawn; model types and methods take turns."""
    generator = np.random.default_rng(0)
    for place, family in zip(range(count), itertools.cycle(FAMILIES[kind]), strict=False):
        known = families_of(find_task(kind))
        case = TaskCase(find_task(kind), family if family in known else None)
        model = make_model(case, family, FAMILIES[kind][family])
        spec = spec_of(case, model)
        names = [name for name, method in discover().methods.items() if method.supports(spec)]
        method = discover().methods[names[place % len(names)]]
        rows, times = int(generator.choice(BATCHES)), int(generator.choice(LENGTHS))
        error = error_of(case, model, method, rows=rows, times=times, seed=place)
        assert error is not None
        told = f"`{method.name}` on {family}, {rows} rows of {case.data.lengths.max()}"
        print(f"{told}: {error:+.2%}", file=sys.stderr, flush=True)
        yield told, error


def longer(cell: Any, times: int) -> Any:
    """A text several times as long; what is not a text stays."""
    return " ".join([cell] * times) if isinstance(cell, str) and " " in cell else cell


def spec_of(case: TaskCase, model: torch.nn.Module) -> ModelSpec:
    missing = None if case.task.new_head else ()  # a language model brings its head
    return describe(model, case.task.kind, case.task.peft_task_type, missing, new_head=case.task.new_head)


def error_of(
    case: TaskCase, model: torch.nn.Module, method: PeftMethod, *, rows: int, times: int, seed: int | None = None
) -> float | None:
    """How far the prediction is off for a method's default, or for settings that are drawn; None where it cannot be."""
    spec = spec_of(case, model)
    if not method.supports(spec):
        return None
    placed = "context" in case.task.inputs  # whose answers stand at places in it
    texts = [] if placed else [*case.task.inputs, *(case.task.taught_columns if case.task.writes else ())]
    case.rows[texts] = case.rows[texts].map(longer, times=times)
    if seed is not None:
        case.reader.max_length = POSITIONS
    case.rows = pd.concat([case.rows] * (1 + rows // len(case.rows)), ignore_index=True)
    data = case.data
    base = BaseModel(model.requires_grad_(False), None, spec)
    space = CandidateSpace.build([method], spec, {}, ())[method.name]
    candidate = space.default() if seed is None else space.sample(1, seed=seed)[0]
    candidate = replace(candidate, hyper=replace(candidate.hyper, batch_size=rows))

    def make_step(module: torch.nn.Module) -> Callable[[Any], object]:
        optimizer = make_optimizer(module, candidate.hyper)
        callback = method.callback(module, candidate.params, spec)
        if callback:
            callback.start(total_steps=100)
        return lambda tensors: training_step(module, optimizer, [Batch(tensors, (rows,))], case.task, CPU, callback)

    longest = np.resize(np.argsort(-data.lengths, kind="stable")[:1], rows)
    predicted = CostEstimator(base, case.task, CPU, data).predict(candidate, Execution(rows)).peak
    return predicted / measured_peak(base, candidate, make_step, data.batch(longest), "cpu") - 1


def make_model(case: TaskCase, family: str, options: dict[str, Any]) -> torch.nn.Module:
    """With random weights."""
    config = transformers.AutoConfig.for_model(family, **options, **case.task.config(case.labels))
    made: torch.nn.Module = getattr(transformers, case.task.auto_class).from_config(config)
    case.task.adapt(made)
    return made


if __name__ == "__main__":
    main()
