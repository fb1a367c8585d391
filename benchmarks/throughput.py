"""How near the training loop is to a hand-written one, and what a study spends on anything but training.

    python benchmarks/throughput.py                       # both parts on the quickstart's model and rows

1. Epochs of `train_epoch` against the shortest loop that trains the same model on the same batches, prepared before it
   starts. The sides take turns; the ratio is of the medians.
2. A study in this process: the share of its search that goes to Optuna, MLflow, progress and pruning, which is what is
   left of the wall time without the trials and their admission, and with what their rungs take to be reported.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.execution import runner
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import attach, trainable
from autopeft.models.modes import train_mode
from autopeft.reporting.progress import PlainProgress
from autopeft.search import loop
from autopeft.search import run as study
from autopeft.study.file import StudySpec
from autopeft.training.batch import bucketed
from autopeft.training.learner import Learner, train_epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study_file", nargs="?", default="studies/quickstart.toml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=6)
    arguments = parser.parse_args()
    spec = StudySpec.from_file(arguments.study_file)
    problem = Problem.from_spec(spec, discover())
    for name, part in problem.space.items():
        ours, theirs = loops(problem, part.default(), arguments.rounds)
        print(
            f"{name:<16} {ours:8.1f} rows/s, hand-written {theirs:8.1f} rows/s, ratio {ours / theirs:.3f}", flush=True
        )
    bookkeeping(spec, arguments.trials)


def loops(problem: Problem, candidate, rounds: int) -> tuple[float, float]:
    """Rows a second of our loop and of a minimal one."""
    device, task, data = problem.device, problem.task, problem.train
    rows = problem.folds[0].train
    ours, theirs = (attach(problem.base, candidate.method, candidate.params).to(device.type) for _ in range(2))
    learner = Learner(ours, candidate.hyper, len(rows))
    optimizer = torch.optim.AdamW(trainable(theirs).values(), lr=candidate.hyper.learning_rate, fused=True)
    batches = [data.batch(rows[chosen], device.type) for chosen in bucketed(data.lengths[rows], learner.batches, 0, 0)]

    def minimal() -> None:
        train_mode(theirs)
        for batch in batches:
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            with device.kernels():
                with device.precision():
                    loss = torch.nn.functional.cross_entropy(theirs(**inputs).logits.float(), batch["labels"])
                loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable_list, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    trainable_list = list(trainable(theirs).values())
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    sides = {"ours": lambda: train_epoch(learner, data, [rows], task, device, [0], 0), "theirs": minimal}
    for round_ in range(rounds + 1):
        for side, run in sides.items():
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_:
                times[side].append(time.perf_counter() - started)
    return len(rows) / statistics.median(times["ours"]), len(rows) / statistics.median(times["theirs"])


def bookkeeping(spec: StudySpec, trials: int) -> None:
    """Run a study with clocks around its trials and around what they call when they reach a rung."""
    spent = {"trials": 0.0, "rungs": 0.0, "search": 0.0, "admission": 0.0}
    running = set()
    run_trial = runner.run_trial

    def timed(key: str, function):
        def run(*args, **kwargs):
            if key in running:  # what it calls is its own time
                return function(*args, **kwargs)
            running.add(key)
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                running.remove(key)
                if key != "admission" or "trials" not in running:
                    spent[key] += time.perf_counter() - started

        return run

    def trial(problem, candidate, stop, *rest, **more):
        return run_trial(problem, candidate, timed("rungs", stop), *rest, **more)

    with tempfile.TemporaryDirectory() as folder:
        smaller = spec.search.model_copy(update={"trials": trials})
        spec = spec.model_copy(update={"output": Path(folder), "search": smaller})
        runner.run_trial, loop.Search.run = timed("trials", trial), timed("search", loop.Search.run)
        for owner, name in (
            (CostEstimator, "__call__"),
            (CostEstimator, "_fit"),
            (runner.PackingChoice, "decide"),
        ):
            setattr(owner, name, timed("admission", getattr(owner, name)))
        study.run(spec, discover(), PlainProgress(Console(quiet=True)))
    other = spent["search"] - spent["trials"] + spent["rungs"] - spent["admission"]
    print(
        f"a search of {trials} trials took {spent['search']:.1f} s: predicting memory and settling how to train "
        f"{spent['admission']:.2f} s ({spent['admission'] / spent['search']:.1%}), drawing, pruning, reporting and "
        f"logging {other:.2f} s ({other / spent['search']:.1%})"
    )


if __name__ == "__main__":
    main()
