"""Where a training step on the CPU spends its time in float32 and in bfloat16, on the same batches in one run.

PyTorch's profiler says how long each kind of operation takes, without what it calls. Products are what bfloat16 speeds
up; the rest shows why a whole step gains less.

    OMP_NUM_THREADS=1 python benchmarks/bfloat16.py studies/quickstart.toml --method lora
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import attach
from autopeft.models.modes import train_mode
from autopeft.study.file import StudySpec
from autopeft.training.batch import bucketed
from autopeft.training.batch_plan import Execution
from autopeft.training.learner import Learner
from autopeft.training.packing import pack

KINDS = {
    "products of linear maps": ("aten::mm", "aten::addmm"),
    "products of attention": ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    "casts and copies": ("aten::copy_", "aten::_to_copy", "aten::to", "aten::empty_strided", "aten::contiguous"),
    "activations, softmax, norms": (
        "aten::gelu", "aten::gelu_backward", "aten::silu", "aten::silu_backward", "aten::_softmax",
        "aten::_softmax_backward_data", "aten::native_layer_norm", "aten::native_layer_norm_backward",
        "aten::_log_softmax", "aten::_log_softmax_backward_data",
    ),
    "sums and multiples of elements": (
        "aten::add", "aten::add_", "aten::mul", "aten::mul_", "aten::div", "aten::sum", "aten::where", "aten::neg",
        "aten::pow", "aten::mean", "aten::rsqrt",
    ),
    "dropout's random numbers": ("aten::random_", "aten::bernoulli_", "aten::ge", "aten::lt"),
}  # fmt: skip
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
REST = "everything else"
WARM_UP = 3


def profiled(problem: Problem, method: str, folds: int, steps: int) -> Counter[str]:
    """Milliseconds of a step, by kind of operation."""
    candidate = problem.space[method].default()
    model = attach(problem.base, candidate.method, candidate.params, seed=problem.spec.seed)
    if folds > 1:
        pack(model, folds, sites=True)
    train_mode(model)
    rows = [fold.train for fold in problem.folds[:folds]]
    execution = Execution(candidate.hyper.batch_size, folds=folds)
    learner = Learner(model, candidate.hyper, len(rows[0]), execution, device=problem.device)
    learner.take_turn()
    seed = problem.spec.seed
    batches = [bucketed(problem.train.extents[own], learner.batches, seed, seed) for own in rows]

    def step(number: int) -> None:
        chosen = [own[batch[number % len(batch)]] for own, batch in zip(rows, batches, strict=True)]
        learner.step(learner.load(problem.train, chosen, "cpu"), problem.task, problem.device)

    for number in range(WARM_UP):
        step(number)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for number in range(WARM_UP, WARM_UP + steps):
            step(number)
    spent: Counter[str] = Counter()
    for event in found.key_averages():
        spent[KIND_OF.get(event.key, REST)] += event.self_cpu_time_total / 1000 / steps
    return spent


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--folds", type=int, default=3, help="packed")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    spec, registry = StudySpec.from_file(arguments.study), discover()
    plain, low = (
        profiled(Problem.from_spec(spec.with_model(dtype=dtype), registry), arguments.method, arguments.folds,
                 arguments.steps)
        for dtype in ("float32", "bfloat16")
    )  # fmt: skip
    print(f"{arguments.method}, {arguments.folds} folds packed, {torch.get_num_threads()} threads, ms a step\n")
    print("| operations | float32 | bfloat16 | ratio | share of the step in bfloat16 |\n|---|---:|---:|---:|---:|")
    whole = sum(low.values())
    for kind in (*KINDS, REST):
        print(f"| {kind} | {plain[kind]:.0f} | {low[kind]:.0f} | {plain[kind] / max(low[kind], 1e-9):.2f} "
              f"| {low[kind] / whole:.0%} |")  # fmt: skip
    print(f"| the whole step | {sum(plain.values()):.0f} | {whole:.0f} | {sum(plain.values()) / whole:.2f} | 100% |")


if __name__ == "__main__":
    main()
