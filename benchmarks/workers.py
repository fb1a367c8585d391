"""Trials per hour of two workers against one, each with one thread: the same candidates on the same rows.

    python benchmarks/workers.py                          # the quickstart's model and rows
    python benchmarks/workers.py --trials 8 --rounds 2   # the sides take turns

Both sides train the same random candidates to their end (no pruner, no race, no references), fold by fold. Only the
search is timed: from its begin, when two workers still have to load the rows and the model that one finds loaded, to
its last trial. The second ratio leaves that start out.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; workers inherit a share of it, at least one

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from autopeft.methods.registry import discover
from autopeft.reporting.progress import PlainProgress
from autopeft.search import run as study
from autopeft.search.loop import Search
from autopeft.search.trial import Trial
from autopeft.study.budget_section import BudgetSection
from autopeft.study.file import StudySpec
from autopeft.study.record import records
from autopeft.study.states import COMPLETE

BAR = 1.6
"""Least ratio that two workers on two cores should reach."""


@dataclass
class Timed:
    """A search that was timed: its complete trials, its seconds, and those of them until the first trial trained."""

    trials: int
    seconds: float
    start: float

    def per_hour(self, *, start: bool = True) -> float:
        """Trials per hour, with the start or without it."""
        return 3600 * self.trials / (self.seconds - (0.0 if start else self.start))


class SearchEndedError(Exception):
    """The search has ended; what a study does afterwards is not timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study_file", nargs="?", default="studies/quickstart.toml")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=int, help="of the data, held-out ones among them; default: as in the study file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    print(
        f"{cores} cores, {arguments.trials} trials of {arguments.epochs} epochs, {arguments.rounds} rounds", flush=True
    )
    spec = StudySpec.from_file(arguments.study_file)
    if arguments.rows:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"max_rows": arguments.rows})})
    found: dict[int, list[Timed]] = {1: [], 2: []}
    for number in range(arguments.rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            one = searched(spec, workers, arguments.trials, arguments.epochs)
            found[workers].append(one)
            print(
                f"round {number + 1}, workers = {workers}: {one.trials} trials in {one.seconds:.1f} s, of which "
                f"{one.start:.1f} s until the first one trained: {one.per_hour():.1f} trials per hour",
                flush=True,
            )
    for start in (True, False):
        one, two = (statistics.median(side.per_hour(start=start) for side in found[workers]) for workers in (1, 2))
        told = "" if start else ", without the start of the search"
        print(f"2 workers: {two:.1f} trials per hour, 1 worker: {one:.1f}, ratio {two / one:.2f} (bar: {BAR}){told}")


def searched(spec: StudySpec, workers: int, trials: int, epochs: int) -> Timed:
    """Time the search of a study with so many workers."""
    search = spec.search.model_copy(
        update={
            "workers": workers,
            "trials": trials,
            "sampler": "random",
            "pruner": "none",
            "portfolio": False,
            "timeout": None,
            "overrides": {**spec.search.overrides, "epochs": epochs},
        }
    )
    validation = spec.validation.model_copy(update={"packing": "off"})  # else each side times which way is faster
    own = {"search": search, "validation": validation, "budget": BudgetSection()}
    run, started = Search.run, Trial.started
    found, began, first = [], [], []

    def timed(self: Search, announcer) -> None:
        began.append(time.perf_counter())
        run(self, announcer)
        seconds = time.perf_counter() - began[0]
        complete = sum(record.state == COMPLETE for record in records(self.study))
        found.append(Timed(complete, seconds, first[0] - began[0]))
        raise SearchEndedError

    def noted(self: Trial, usage) -> None:
        first.append(time.perf_counter())
        started(self, usage)

    Search.run, Trial.started = timed, noted
    try:
        with tempfile.TemporaryDirectory() as folder:
            study.run(
                spec.model_copy(update={**own, "output": Path(folder)}), discover(), PlainProgress(Console(quiet=True))
            )
    except SearchEndedError:
        pass
    finally:
        Search.run, Trial.started = run, started
    return found[0]


if __name__ == "__main__":
    main()
