"""Which pruner: record full learning curves of one study's candidates, then replay them through each pruner.

Every candidate is cross-validated to its end once. The recorded means are then fed to each pruner in many random
orders, as a study would feed them. Printed per pruner: the share of training samples it spares, how much worse its
winner is than the best candidate (regret, mean over orders), and how often it pruned the best one. Regret counts
only what pruning costs: without it the best candidate is always found.

    python benchmarks/pruners.py --curves tweets.json --record studies/quickstart.toml --candidates 24
    python benchmarks/pruners.py --curves benchmarks/curves/*.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import optuna

from autopeft import rungs
from autopeft.objective import run_trial
from autopeft.problem import Problem
from autopeft.registry import discover
from autopeft.sampling import make_pruner
from autopeft.spec import StudySpec

PRUNERS = {
    "none": lambda rungs: make_pruner("none", rungs),
    "median": lambda rungs: make_pruner("median", rungs),
    "hyperband": lambda rungs: make_pruner("hyperband", rungs),
    **{
        f"successive_halving, factor {factor}, from rung {first}": lambda _, first=first, factor=factor: (
            optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
        )
        for first in (1, 2)
        for factor in (2, 3, 4)
    },
    "median, from rung 2": lambda _: optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2),
}
ORDERS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=Path, nargs="+", required=True, help="one file a data set")
    parser.add_argument("--record", metavar="STUDY", help="record the curves of this study first")
    parser.add_argument("--candidates", type=int, default=24)
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record, arguments.candidates, arguments.curves[0])
    sets = [[(entry["epochs"], entry["means"]) for entry in json.loads(path.read_text())] for path in arguments.curves]
    print(f"{', '.join(f'{path.stem}: {len(s)}' for path, s in zip(arguments.curves, sets, strict=True))} candidates")
    print(f"{'pruner':<42} {'samples spared':>14} {'regret':>8} {'best pruned':>12}")
    for name, make in PRUNERS.items():
        spared, regret, lost = np.mean([replay(make, c, seed) for c in sets for seed in range(ORDERS)], axis=0)
        print(f"{name:<42} {spared:>14.1%} {regret:>8.4f} {lost:>12.1%}")


def record(study: str, candidates: int, path: Path) -> None:
    """Write the mean score at each rung, for defaults and random candidates inside the budget; goes on where it was."""
    problem = Problem.from_spec(StudySpec.from_file(study), discover())
    drawn = [part.default() for part in problem.space.values()]
    for part in problem.space.values():
        drawn += part.sample(candidates, seed=1)[: candidates // len(problem.space)]
    done = json.loads(path.read_text()) if path.is_file() else []
    rungs.FEWEST_ROWS = min(len(fold.train) for fold in problem.folds) // 2  # from half an epoch on, as all curves are
    for candidate in drawn:
        known = str(candidate) in {entry["candidate"] for entry in done}
        if known or not problem.budget.admits(problem.appraiser(candidate)):
            continue
        scored = run_trial(problem, candidate, lambda rung: None).rungs
        means = [rung.mean for rung in scored]
        done.append({"candidate": str(candidate), "epochs": [rung.epoch for rung in scored], "means": means})
        path.write_text(json.dumps(done, indent=1))
        print(candidate, [f"{mean:.3f}" for mean in means], flush=True)


def replay(make, curves: list[tuple[list[float], list[float]]], seed: int) -> tuple[float, float, float]:
    """Share of samples spared, regret, and whether the best was pruned, in one random order."""
    order = np.random.default_rng(seed).permutation(len(curves))
    study = optuna.create_study(
        study_name=f"replay-{seed}", direction="maximize", pruner=make(max(len(ends) for ends, _ in curves))
    )
    spent, finished = 0.0, []
    for index in order:
        trial, (ends, means) = study.ask(), curves[index]
        for number, mean in enumerate(means, 1):
            trial.report(mean, number)
            if trial.should_prune() and number < len(means):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, means[-1])
            finished.append(means[-1])
        spent += ends[number - 1]
    best, found = max(means[-1] for _, means in curves), max(finished, default=0.0)
    return 1 - spent / sum(ends[-1] for ends, _ in curves), best - found, float(found < best)


if __name__ == "__main__":
    main()
