"""What a training step on the CPU costs with and without its two savings, in one run on the same batches.

The savings: no dropout of the frozen base's attention probabilities, and attention from plain matrix products instead
of PyTorch's fused kernel. Variants take turns on each batch, so that a machine whose speed drifts
drifts for all alike; printed are medians and ratios.

    python benchmarks/cpu_step.py studies/quickstart.toml
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from autopeft.model import attach, train_mode
from autopeft.problem import Problem
from autopeft.registry import discover
from autopeft.spec import StudySpec
from autopeft.training import Device, Learner, bucketed, training_step

if TYPE_CHECKING:
    from collections.abc import Callable


class FusedAttention(Device):
    """The device as it would be with PyTorch's own choice of attention kernel."""

    @contextmanager
    def computing(self):
        """Autocast alone."""
        with torch.autocast(self.type, dtype=self.autocast, enabled=self.autocast is not None):
            yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    problem = Problem.from_spec(StudySpec.from_file(arguments.study), discover())
    candidate = problem.space[arguments.method].default()
    model = attach(problem.base, candidate.method, candidate.params)
    learner = Learner(model, candidate.hyper, len(problem.train))
    learner.take_turn()
    fused = FusedAttention(problem.device.type, problem.device.autocast)
    variants: dict[str, tuple[Callable[[], object], Device]] = {
        "as autopeft trains": (lambda: train_mode(model), problem.device),
        "attention dropout on": (lambda: model.train(), problem.device),
        "fused attention": (lambda: train_mode(model), fused),
        "both": (lambda: model.train(), fused),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    batches = list(bucketed(problem.train.lengths, candidate.hyper.batch_size, seed=0))[: arguments.steps]
    for number, rows in enumerate([batches[0], *batches]):
        batch = problem.train.batch(rows, problem.device.type)
        for name, (mode, device) in variants.items():
            mode()
            started = time.perf_counter()
            training_step(model, learner.optimizer, batch, problem.task, device)
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - started)
    ours = statistics.median(times["as autopeft trains"])
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"{name:<22} {median * 1e3:8.1f} ms a step   {median / ours:5.2f}x")


if __name__ == "__main__":
    main()
