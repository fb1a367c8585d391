"""Which pruner: record full learning curves of one study's candidates, then replay them through each pruner.

Every candidate is cross-validated to its end once. The recorded means are then fed to each pruner in many random
orders, as a study would feed them: from a half epoch on, or from a whole one. Printed per pruner: the share of training
samples it spares; once every candidate was tried, how much worse its winner is than the best candidate (regret, mean
over orders) and how often it pruned the best one; and the mean regret over all budgets up to what training every
candidate to its end takes, where what was spared lets more candidates be tried. The last one is drawn against the
budget in OUT/pruners.png, for rungs from one epoch on.

    python benchmarks/pruners.py --curves tweets.json --record studies/quickstart.toml --candidates 24
    python benchmarks/pruners.py --curves benchmarks/curves/*.json --out docs
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import optuna

from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.search.pruner import make_pruner
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE
from autopeft.training import rungs

KINDS = {
    "none": lambda rungs: make_pruner("none", rungs),
    "median": lambda rungs: make_pruner("median", rungs),
    "hyperband": lambda rungs: make_pruner("hyperband", rungs),
    "successive halving": lambda rungs: make_pruner("successive_halving", rungs),
    **{
        f"Optuna's successive halving, factor {factor}": lambda _, factor=factor: (
            optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=factor)
        )
        for factor in (2, 3, 4)
    },
}
FIRST = (0.5, 1.0)  # the epoch of the first rung
ORDERS = 200
BUDGETS = np.linspace(0.02, 1, 50)  # shares of what training every candidate to its end takes

Curve = tuple[list[float], list[float]]  # epochs, and the mean scores after them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=Path, nargs="+", required=True, help="one file a data set")
    parser.add_argument("--record", metavar="STUDY", help="record the curves of this study first")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--out", type=Path, help="where to draw pruners.png")
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record, arguments.candidates, arguments.curves[0])
    sets = [[(entry["epochs"], entry["means"]) for entry in json.loads(path.read_text())] for path in arguments.curves]
    print(f"{', '.join(f'{path.stem}: {len(s)}' for path, s in zip(arguments.curves, sets, strict=True))} candidates")
    print("| pruner | samples spared | regret | best candidate pruned | regret over all budgets |")
    print("|---|---:|---:|---:|---:|")
    drawn = {}
    for first, (name, make) in itertools.product(FIRST, KINDS.items()):
        if name == "none" and first < 1:
            continue
        replays = [replay(make, from_epoch(c, first), seed) for c in sets for seed in range(ORDERS)]
        spared, regrets = np.mean([r[0] for r in replays]), np.array([r[1] for r in replays])
        label = f"{name}, from {'half an' if first < 1 else 'one'} epoch"
        if first == 1:
            drawn[name] = regrets.mean(axis=0)
        lost = np.mean(regrets[:, -1] > 0)
        print(f"| {label} | {spared:.0%} | {regrets[:, -1].mean():.4f} | {lost:.0%} | {regrets.mean():.4f} |")
    if arguments.out:
        draw(drawn, arguments.out / "pruners.png")


def from_epoch(curves: list[Curve], first: float) -> list[Curve]:
    """The curves as a study records them whose first rung is after that many epochs."""
    cut = [next(i for i, end in enumerate(ends) if end >= first) for ends, _ in curves]
    return [(ends[i:], means[i:]) for (ends, means), i in zip(curves, cut, strict=True)]


def draw(regrets: dict[str, np.ndarray], path: Path) -> None:
    """Regret against budget, of every pruner by name."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, regret in regrets.items():
        axes.plot(100 * BUDGETS, regret, label=name)
    axes.set(xlabel="training samples, % of all candidates trained to their end", ylabel="regret", yscale="log")
    axes.set_title("How far the best score found is below the best there is")
    axes.legend()
    figure.savefig(path, dpi=130)


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
        if known or not problem.budget.admits(problem.cost_estimator(candidate)):
            continue
        outcome = run_trial(problem, candidate, lambda rung: None)
        if outcome.state != COMPLETE:
            print(candidate, outcome.reason, flush=True)
            continue
        scored, means = outcome.rungs, [rung.mean for rung in outcome.rungs]
        done.append({"candidate": str(candidate), "epochs": [rung.epoch for rung in scored], "means": means})
        path.write_text(json.dumps(done, indent=1))
        print(candidate, [f"{mean:.3f}" for mean in means], flush=True)


def replay(make, curves: list[Curve], seed: int) -> tuple[float, np.ndarray]:
    """Share of samples spared, and the regret at each of the budgets, in one random order.

    Until a candidate is trained to its end the regret is that of the worst one, as a study then has nothing to show.
    """
    order = np.random.default_rng(seed).permutation(len(curves))
    study = optuna.create_study(
        study_name=f"replay-{seed}", direction="maximize", pruner=make(max(len(ends) for ends, _ in curves))
    )
    finals = [means[-1] for _, means in curves]
    spent, found = [0.0], [min(finals)]  # after each trial
    for index in order:
        trial, (ends, means) = study.ask(), curves[index]
        for number, mean in enumerate(means, 1):
            trial.report(mean, number)
            if trial.should_prune() and number < len(means):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                found.append(found[-1])
                break
        else:
            study.tell(trial, means[-1])
            found.append(max(found[-1], means[-1]))
        spent.append(spent[-1] + ends[number - 1])
    shares = np.array(spent) / sum(ends[-1] for ends, _ in curves)
    there = np.searchsorted(shares, BUDGETS + 1e-9, side="right") - 1  # trials that a budget has ended
    return 1 - shares[-1], max(finals) - np.array(found)[there]


if __name__ == "__main__":
    main()
