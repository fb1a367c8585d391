"""Are first trials drawn near the methods' defaults better than evenly drawn ones?

Of every method as many candidates are drawn either way, and each is cross-validated to its end on the study's rows.
Printed per study and way: the median score; how many of the draws score at least as much as their method's default; and
the best of five, the mean over all choices of five of them. What was scored is kept in OUT, and a second start goes on
from there.

    python benchmarks/near_defaults.py studies/quickstart.toml --out near.json
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna

from autopeft.common.seeds import derive_seed
from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.search.sampler import NearDefaultsSampler
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE

if TYPE_CHECKING:
    from autopeft.methods.candidate import Candidate, MethodSpace

WAYS = ("evenly", "near the default")
BEST_OF = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--each", type=int, default=8, help="candidates of each method, either way")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    scores = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    print(f"| study | drawn | candidates | median | as good as the default | best of {BEST_OF} |")
    print("|---|---|---:|---:|---:|---:|")
    for file in arguments.studies:
        problem = Problem.from_spec(StudySpec.from_file(file), discover())
        known = scores.setdefault(problem.spec.name, {})
        for way in WAYS:
            found, as_good = [], 0
            for part in problem.space.values():
                drawn = [draw(problem, part, way, seed) for seed in range(arguments.each)]
                for candidate in (default := part.default(), *drawn):
                    if str(candidate) not in known:
                        known[str(candidate)] = score(problem, candidate)
                        arguments.out.write_text(json.dumps(scores, indent=1))
                found += [known[str(candidate)] for candidate in drawn]
                as_good += sum(known[str(candidate)] >= known[str(default)] for candidate in drawn)
            print(
                f"| {problem.spec.name} | {way} | {len(found)} | {np.median(found):.4f} | {as_good / len(found):.0%} "
                f"| {best_of(BEST_OF, found):.4f} |",
                flush=True,
            )


def score(problem: Problem, candidate: Candidate) -> float:
    """The candidate's mean over the folds at its end; nothing if it fails."""
    outcome = run_trial(problem, candidate, lambda rung: None)
    return outcome.rungs[-1].mean if outcome.state == COMPLETE else 0.0


def draw(problem: Problem, part: MethodSpace, way: str, seed: int) -> Candidate:
    """A candidate of a method that is inside the study's budget."""
    study, seed = optuna.create_study(), derive_seed(1, seed)
    even = optuna.samplers.RandomSampler(seed)
    study.sampler = even if way == WAYS[0] else NearDefaultsSampler(problem.space.defaults, seed)
    while not problem.budget.admits(problem.cost_estimator(candidate := part.suggest(study.ask()))):
        pass
    return candidate


def best_of(count: int, scores: list[float]) -> float:
    """The mean of the highest, over all choices of so many of them."""
    order = sorted(scores)
    ways = [math.comb(rank, count - 1) for rank in range(len(order))]  # that have the rest below this one
    return float(np.average(order, weights=ways))


if __name__ == "__main__":
    main()
