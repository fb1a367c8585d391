"""Searches on simulated workers, along the curves of a bank whose truth is known."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from tests.synthetic_bank import Recipe, write

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from cells import Bank
from scale import Setting, simulated, synchronous
from surrogate import Surrogate

METHODS = {"method 0": "lora", "method 1": "adapter"}
FEW = Recipe(groups=1, methods=2, draws=1, repeats=1)


def cell_of(folder, recipe):
    """A cell whose methods have the names of installed ones."""
    write(folder, recipe)
    configs = pd.read_parquet(folder / "configs.parquet")
    configs.assign(method=configs.method.astype(str).replace(METHODS)).to_parquet(folder / "configs.parquet")
    return Bank.read(folder).cell("task 0", 100)


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory):
    return Surrogate(cell_of(tmp_path_factory.mktemp("bank"), replace(FEW, draws=4, repeats=2)))


def test_a_method_with_one_recorded_curve_follows_it_at_any_rate_and_length(tmp_path):
    cell = cell_of(tmp_path, FEW)
    candidate, own = CandidateSpace.build([discover()["lora"]], None, {}, ())["lora"].default(), cell.method == "lora"
    epochs = candidate.hyper.epochs
    ends = [epochs * share / 24 for share in FEW.epochs]
    recorded = [*cell.score[own].mean(axis=(0, 1, 2))[:-1], cell.end[own].mean()]
    assert Surrogate(cell).scores(candidate, ends, noise=False) == pytest.approx(recorded)


def test_a_candidate_scores_what_curves_near_its_rate_do_and_the_same_each_time(surrogate):
    part = CandidateSpace.build([discover()["lora"]], None, {}, ())["lora"]
    curves = surrogate._curves["lora"]
    best = max(curves, key=lambda curve: curve.scores[-1])
    drawn = part.default()
    at_best = replace(drawn, hyper=replace(drawn.hyper, learning_rate=float(best.rate), epochs=24))
    score = surrogate.scores(at_best, [24.0], noise=False)[0]
    assert np.mean([curve.scores[-1] for curve in curves]) < score <= best.scores[-1]
    other = replace(at_best, params={**at_best.params, "r": 2 * at_best.params["r"]})
    noisy = [surrogate.scores(one, [24.0])[0] for one in (at_best, at_best, other)]
    assert noisy[0] == noisy[1] != noisy[2]


def test_synchronous_halving_keeps_the_better_half_of_all_at_each_rung():
    ends = {0: [1.0, 2.0, 4.0], 1: [1.0, 2.0, 4.0], 2: [1.0, 2.0, 4.0], 3: [1.0, 2.0, 4.0], 4: [1.0]}
    scores = {0: [0.1, 0.9, 0.9], 1: [0.4, 0.2, 0.2], 2: [0.3, 0.3, 0.3], 3: [0.2, 0.4, 0.4], 4: [0.05]}
    assert synchronous(ends, scores) == {0: 1.0, 1: 2.0, 2: 4.0, 3: 1.0, 4: 1.0}
    assert synchronous(ends, scores, kept=(0,)) == {0: 4.0, 1: 2.0, 2: 2.0, 3: 1.0, 4: 1.0}
    assert synchronous(ends, scores, defaults=(0, 3)) == {0: 1.0, 1: 2.0, 2: 2.0, 3: 4.0, 4: 1.0}


def test_many_workers_train_the_trials_of_one_in_less_time(surrogate):
    alone, many = (simulated(surrogate, 100, workers, 0, Setting(16, charged=False)) for workers in (1, 16))
    assert alone.seconds == pytest.approx(alone.trained)  # it never waits
    assert many.trained / 16 < many.seconds < alone.seconds / 2
    assert np.isnan(alone.unaware)
    assert many.unaware == 1  # nothing had ended, so all were drawn near the defaults
    assert 0 <= alone.wasted < 1
    assert alone.winner <= alone.best


@pytest.mark.exhaustive
def test_a_simulation_whose_clock_counts_no_real_time_is_the_same_each_time(surrogate):
    first, second = (simulated(surrogate, 100, 4, 1, Setting(24, charged=False)) for _ in range(2))
    assert replace(first, real=(0.0, 0.0), own=0.0) == replace(second, real=(0.0, 0.0), own=0.0)
    charged = simulated(surrogate, 100, 4, 1, Setting(24, rung_seconds=1e-6))
    assert charged.seconds > 100 * charged.trained  # rungs take no time, drawing does
