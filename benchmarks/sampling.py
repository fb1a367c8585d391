"""What drawing a candidate costs: the study's sampler against Optuna's own grouped TPE, which models every method.

    python benchmarks/sampling.py

Both draw candidates of all methods by turns, in two studies of the same length scored by the same smooth function of
the params. Printed are medians of the seconds a proposal takes, once there are enough trials to model, and the best
scores found: the mean over the seeds and its standard error.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import optuna

from autopeft.common.seeds import derive_seed
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.search.sampler import make_sampler

STARTUP = 10


def grouped(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Optuna's own, as the study's sampler is set up but for drawing the method first."""
    options = {"multivariate": True, "group": True, "n_startup_trials": STARTUP}
    return optuna.samplers.TPESampler(seed=derive_seed(seed, number), **options)


def search(space: CandidateSpace, seed: int, trials: int, *, ours: bool) -> tuple[list[float], float]:
    """Seconds of each proposal that was modelled, and the best score."""
    study, seconds = optuna.create_study(direction="maximize"), []
    for number in range(trials):
        started = time.perf_counter()
        study.sampler = make_sampler(seed, number, number, space.defaults) if ours else grouped(seed, number)
        trial = study.ask()
        candidate = space.suggest(trial)
        seconds.append(time.perf_counter() - started)
        rate = math.log10(candidate.hyper.learning_rate / space[candidate.method.name].default().hyper.learning_rate)
        order = list(space).index(candidate.method.name)
        study.tell(trial, -((rate - 0.3) ** 2) - 0.02 * order - 0.5 * candidate.hyper.weight_decay)
    return seconds[STARTUP:], study.best_value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=20)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = CandidateSpace.build(discover().methods.values(), None, {}, ())
    seconds: dict[bool, list[float]] = {True: [], False: []}
    best: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(arguments.seeds):
        for ours in (True, False):
            took, found = search(space, seed, arguments.trials, ours=ours)
            seconds[ours] += took
            best[ours].append(found)
    ours, theirs = (1e3 * statistics.median(seconds[side]) for side in (True, False))
    print(f"a proposal: {ours:.1f} ms, with every method modelled {theirs:.1f} ms: {theirs / ours:.1f} times as fast")
    for name, side in (("ours", True), ("every method modelled", False)):
        error = statistics.stdev(best[side]) / math.sqrt(arguments.seeds)
        print(f"best score of {arguments.trials} trials, {name}: {statistics.fmean(best[side]):.4f} ± {error:.4f}")


if __name__ == "__main__":
    main()
