"""Which pruner: record full learning curves of one study's candidates, then replay them through each pruner.

Every candidate is cross-validated to its end once. The recorded means are then fed to each pruner in many random
orders, as a study would feed them. Printed per pruner: the share of epochs it spares, how much worse its winner is
than the best candidate (regret, mean over orders), and how often it pruned the best one.

    python benchmarks/pruners.py studies/quickstart.toml --candidates 24 --curves curves.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import optuna

from autopeft.objective import run_trial
from autopeft.problem import Problem
from autopeft.registry import discover
from autopeft.sampling import make_pruner
from autopeft.spec import StudySpec

PRUNERS = ("successive_halving", "hyperband", "median", "none")
ORDERS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--curves", type=Path, required=True, help="recorded once, then read")
    arguments = parser.parse_args()
    if not arguments.curves.is_file():
        arguments.curves.write_text(json.dumps(record(arguments.study, arguments.candidates)))
    curves = json.loads(arguments.curves.read_text())
    print(f"{len(curves)} candidates, {sum(map(len, curves))} epochs, {ORDERS} orders each")
    print(f"{'pruner':<20} {'epochs spared':>14} {'regret':>8} {'best pruned':>12}")
    for name in PRUNERS:
        spared, regret, lost = np.mean([replay(name, curves, seed) for seed in range(ORDERS)], axis=0)
        print(f"{name:<20} {spared:>14.1%} {regret:>8.4f} {lost:>12.1%}")


def record(study: str, candidates: int) -> list[list[float]]:
    """The mean score after each epoch, for defaults and random candidates inside the budget."""
    problem = Problem.from_spec(StudySpec.from_file(study), discover())
    drawn = [part.default() for part in problem.space.values()]
    for part in problem.space.values():
        drawn += part.sample(candidates, seed=1)[: candidates // len(problem.space)]
    curves = []
    for candidate in drawn:
        if problem.budget.admits(problem.appraiser(candidate)):
            curves.append([rung.mean for rung in run_trial(problem, candidate, lambda rung: None).rungs])
            print(candidate, [f"{mean:.3f}" for mean in curves[-1]], flush=True)
    return curves


def replay(name: str, curves: list[list[float]], seed: int) -> tuple[float, float, float]:
    """Share of epochs spared, regret, and whether the best was pruned, in one random order."""
    order = np.random.default_rng(seed).permutation(len(curves))
    pruner = make_pruner(name, max(map(len, curves)))
    study = optuna.create_study(study_name=f"replay-{seed}", direction="maximize", pruner=pruner)
    spent, finished = 0, []
    for index in order:
        trial = study.ask()
        for epoch, mean in enumerate(curves[index], 1):
            spent += 1
            trial.report(mean, epoch)
            if trial.should_prune() and epoch < len(curves[index]):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, curves[index][-1])
            finished.append(curves[index][-1])
    best = max(curve[-1] for curve in curves)
    found = max(finished, default=0.0)
    return 1 - spent / sum(map(len, curves)), best - found, float(found < best)


if __name__ == "__main__":
    main()
