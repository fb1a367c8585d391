"""What a training step on the CPU costs with and without each of its savings, in one run on the same batches.

The savings: linear maps of the frozen base kept in bfloat16 instead of cast in every step, dropout masks of 16 bits an
element, no dropout of the frozen base's attention probabilities, and attention from plain matrix products instead of
PyTorch's fused kernel. Each variant leaves one saving out. They take turns over a few rounds, so that a machine
whose speed drifts drifts for all alike; printed are medians over the rounds and ratios.

    python benchmarks/cpu_step.py studies/quickstart.toml
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

from torch import nn

from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import attach
from autopeft.models.device import Device
from autopeft.models.dropout import Dropout
from autopeft.models.modes import train_mode
from autopeft.study.file import StudySpec
from autopeft.training.batch import Batch, bucketed
from autopeft.training.learner import Learner
from autopeft.training.step import training_step

WARM_UP = 2


class FusedAttention(Device):
    """The device as it would be with PyTorch's own choice of attention kernel."""

    def kernels(self):
        """Whatever PyTorch chooses."""
        return nullcontext()


class Variant:
    """A model and its learner, with some of the savings left out."""

    def __init__(self, problem: Problem, method: str, without: set[str]) -> None:
        candidate = problem.space[method].default()
        self.problem, self.without = problem, without
        self.model = attach(problem.base, candidate.method, candidate.params)
        self.device = problem.device
        if "fused" in without:
            self.device = FusedAttention(problem.device.type, problem.device.autocast)
        for module in self.model.modules():
            if isinstance(module, Dropout) and "masks" in without:
                module.__class__ = nn.Dropout
            if isinstance(module, nn.Linear) and "lowered" in without:
                module.weight = nn.Parameter(module.weight.float(), module.weight.requires_grad)
        self.learner = Learner(self.model, candidate.hyper, len(problem.train))
        self.learner.take_turn()

    def step(self, batch) -> float:
        """Seconds of one training step."""
        train_mode(self.model)
        if "attention" in self.without:
            self.model.train()
        started = time.perf_counter()
        training_step(self.model, self.learner.optimizer, [batch], self.problem.task, self.device)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    problem = Problem.from_spec(StudySpec.from_file(arguments.study), discover())
    left_out = {
        "as autopeft trains": set(),
        "weights cast in every step": {"lowered"},
        "PyTorch's dropout masks": {"masks"},
        "attention dropout on": {"attention"},
        "fused attention": {"fused"},
        "none of the savings": {"lowered", "masks", "attention", "fused"},
    }
    variants = {name: Variant(problem, arguments.method, without) for name, without in left_out.items()}
    times: dict[str, list[float]] = {name: [] for name in variants}
    batch_size = problem.space[arguments.method].default().hyper.batch_size
    chosen = bucketed(problem.train.lengths, -(-len(problem.train) // batch_size), seed=0, order=0)
    batches = [Batch.of(problem.train, [rows], problem.device.type) for rows in chosen[: arguments.steps]]
    for _ in range(arguments.rounds):
        for name, variant in variants.items():
            for _ in range(WARM_UP):  # a turn starts with the caches full of another variant's weights
                variant.step(batches[0])
            times[name].append(statistics.fmean(variant.step(batch) for batch in batches))
    ours = statistics.median(times["as autopeft trains"])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:<28} {median * 1e3:8.1f} ms a step   {median / ours:5.2f}x")


if __name__ == "__main__":
    main()
