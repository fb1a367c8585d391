"""What smaller passes and checkpointed layers cost in time and spare in memory, beside what the planner assumes.

Every way to run one batch of the study's longest rows is timed in turn over a few rounds; printed are medians relative
to the whole batch, the relative cost that `autopeft.training.batch_plan` chooses by, and the predicted peak memory.

    python benchmarks/execution.py studies/quickstart.toml
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from autopeft.common.units import format_bytes
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import attach
from autopeft.models.modes import checkpoint_layers, train_mode
from autopeft.study.file import StudySpec
from autopeft.training.batch_plan import ways
from autopeft.training.learner import Learner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    problem = Problem.from_spec(StudySpec.from_file(arguments.study), discover())
    candidate = problem.space[arguments.method].default()
    size, device = candidate.hyper.batch_size, problem.device.type
    rows = problem.train.lengths.argsort()[::-1][:size]
    length = int(problem.train.lengths.max())
    found = ways(size, length, device)
    learners = []
    for way in found:
        model = attach(problem.base, candidate.method, candidate.params).to(device)
        if way.checkpointing:
            checkpoint_layers(model)
        train_mode(model)
        learner = Learner(model, candidate.hyper, len(problem.train), way)
        learner.take_turn()
        learners.append(learner)
    times: list[list[float]] = [[] for _ in found]
    for round_ in range(arguments.rounds + 1):
        for learner, taken in zip(learners, times, strict=True):
            parts = learner.load(problem.train, [rows[::-1]], device)
            started = time.perf_counter()
            for _ in range(2):
                learner.step(parts, problem.task, problem.device)
            if device == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first round warms up
                taken.append(time.perf_counter() - started)
    whole = next(i for i, way in enumerate(found) if way.micro_batch == size and not way.checkpointing)
    base_time, base_cost = statistics.median(times[whole]), found[whole].cost(size, length, device)
    print(f"{size} rows of up to {length} tokens on {device}")
    print(f"{'way':<40} {'time':>7} {'assumed':>8} {'predicted peak':>15}")
    for way, taken in zip(found, times, strict=True):
        peak = format_bytes(problem.cost_estimator.predict(candidate, way).peak)
        cost = way.cost(size, length, device) / base_cost
        print(f"{way!s:<40} {statistics.median(taken) / base_time:>6.2f}x {cost:>7.2f}x {peak:>15}")


if __name__ == "__main__":
    main()
