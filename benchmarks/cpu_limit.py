"""How near training on a CPU is to what its matrix products alone must take, and what that means for a search.

    python benchmarks/cpu_limit.py studies/quickstart.toml

For each method's default: the time of a training step, which part of it runs inside matrix products (torch.profiler),
the floating-point operations these need (torch.utils.flop_counter), and how long they would take at the rate of one
large product, the best this machine does. If the study has been run, its trials' rows at that rate are the time that no
search of these rows can be under on this machine, whatever is done beside the products.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import optuna
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import attach
from autopeft.models.modes import train_mode
from autopeft.study.file import StudySpec
from autopeft.study.folder import JOURNAL
from autopeft.study.journal import open_journal
from autopeft.study.record import records
from autopeft.training.batch import Batch, bucketed
from autopeft.training.learner import Learner
from autopeft.training.step import training_step

if TYPE_CHECKING:
    from collections.abc import Callable

PRODUCTS = ("mm", "mkldnn")  # parts of their operators' names
SIZE = 2048
STEPS, ROUNDS = 12, 5


def best_rate() -> float:
    """Floating-point operations a second in one large product."""
    left, right = torch.randn(2, SIZE, SIZE)
    seconds = []
    for _ in range(12):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return 2 * SIZE**3 / min(seconds)


def share_in_products(run: Callable[[], object]) -> float:
    """Part of the operators' own time that is spent in matrix products."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    events = profiler.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    products = sum(e.self_cpu_time_total for e in events if any(name in e.key for name in PRODUCTS))
    return products / whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    arguments = parser.parse_args()
    problem = Problem.from_spec(StudySpec.from_file(arguments.study), discover())
    rates, per_row = [best_rate()], {}
    for name, part in problem.space.items():
        candidate = part.default()
        model = attach(problem.base, candidate.method, candidate.params)
        learner = Learner(model, candidate.hyper, len(problem.train))
        learner.take_turn()
        train_mode(model)
        size = candidate.hyper.batch_size
        schedule = bucketed(problem.train.lengths, -(-len(problem.train) // size), seed=0, order=0)[:STEPS]
        batches = [Batch.of(problem.train, [rows], problem.device.type) for rows in schedule]

        def run(model=model, learner=learner, batches=batches) -> None:
            for batch in batches:
                training_step(model, learner.optimizer, [batch], problem.task, problem.device)

        run()
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - started)
            rates.append(best_rate())
        with FlopCounterMode(display=False) as counter:
            run()
        rows = sum(map(len, schedule))
        per_row[name] = statistics.median(seconds) / rows, counter.get_total_flops() / rows, share_in_products(run)
    rate = max(rates)
    print(f"one product of {SIZE} x {SIZE}: {rate / 1e9:.0f} GFLOP a second at best, {min(rates) / 1e9:.0f} at worst")
    for name, (took, needed, share) in per_row.items():
        least = needed / rate
        print(
            f"{name:<16} {1e3 * took:6.2f} ms a row, {share:4.0%} of it in products; {needed / 1e9:.2f} GFLOP a row, "
            f"{1e3 * least:.2f} ms at that rate: {took / least:.2f} times the least"
        )
    if (problem.spec.output / JOURNAL).is_file():
        found = records(optuna.load_study(study_name=None, storage=open_journal(problem.spec.output)))
        epoch = len(problem.train) * (problem.spec.validation.folds - 1)
        rows = {name: sum(r.epochs_trained for r in found if r.method == name) * epoch for name in per_row}
        least = sum(rows[name] * per_row[name][1] / rate for name in per_row)
        took = sum(rows[name] * per_row[name][0] for name in per_row)
        print(f"{sum(rows.values()):.0f} rows trained: {took:.0f} s at these steps' speed, {least:.0f} s at the least")


if __name__ == "__main__":
    main()
