"""Which pair runs the next fresh fold, when that is enough, and who wins."""

import math

import numpy as np
import pytest

from autopeft.search.posterior import Posterior, Run, Variances
from autopeft.search.race import Entrant, Race, Rules, Turn, finalists

SEARCH = 3
"""Blocks of the search; those of the race follow."""

NEVER = 2.0
"""A chance that is never reached."""

FRESH = range(SEARCH, SEARCH + 12)
VARIANCES = Variances(between=2.25e-4, folds=6.25e-4, floor=0.1)


def entrants(count, defaults=()):
    return [Entrant(f"method {i}", default=i in defaults, cost=float(i)) for i in range(count)]


def searched(*means):
    """A study whose folds all agree on how the candidates differ."""
    return [Run(i, block, mean + 0.1 * block) for i, mean in enumerate(means) for block in range(SEARCH)]


def race(count, defaults=(), variances=VARIANCES, **rules):
    return Race(entrants(count, defaults), variances, Rules(**rules), range(count))


def fresh(_):
    return FRESH


def test_the_leader_and_whoever_is_most_likely_better_run_the_same_fold():
    runs = searched(0.60, 0.62, 0.61, 0.50)
    assert race(4).turn(runs, fresh) == Turn(3, (1, 2))


def test_a_new_challenger_catches_up_on_folds_that_the_leader_has_run():
    runs = [*searched(0.60, 0.62, 0.61), Run(1, 3, 0.9), Run(2, 3, 0.8)]
    assert race(3).turn(runs, fresh) == Turn(3, (0,))
    both = [*runs, Run(0, 3, 0.9)]
    assert race(3).turn(both, fresh) == Turn(4, (1, 0))


def test_it_is_over_once_the_leader_is_surely_better():
    assert race(2).turn(searched(0.70, 0.60), fresh) is None
    assert race(2, sure=NEVER, settled=NEVER, hopeless=NEVER).turn(searched(0.70, 0.60), fresh)


def test_it_is_over_once_the_two_are_too_close_to_matter():
    close = Variances(between=4e-6, folds=1e-6, floor=0.0)
    assert race(2, variances=close, settled=NEVER).turn(searched(0.600, 0.6001), fresh) is None
    assert race(2, variances=close, settled=NEVER, rope=1e-5).turn(searched(0.600, 0.6001), fresh)


def test_it_is_over_once_more_folds_would_not_change_who_leads():
    """Though it is far from sure that the leader is better: what is left, no fold removes."""
    deep = Variances(between=2.25e-4, folds=1e-6, floor=500.0)
    runs = searched(0.61, 0.60)
    assert race(2, variances=deep).posterior(runs).chance(0, 1) < 0.8
    assert race(2, variances=deep).turn(runs, fresh) is None
    assert race(2, variances=deep, settled=NEVER).turn(runs, fresh)


def test_a_finalist_far_behind_runs_no_more():
    runs = searched(0.60, 0.61, 0.45)
    found = race(3, variances=Variances(2.25e-4, 1e-5, 0.0), sure=NEVER, alike=NEVER, settled=NEVER)
    assert found.turn(runs, lambda i: FRESH if i == 2 else []) is None
    assert found.turn(runs, fresh) == Turn(3, (1, 0))


def test_it_is_over_once_no_fold_is_left_for_any_pair():
    runs = searched(0.60, 0.61, 0.605)
    assert race(3).turn(runs, lambda i: []) is None
    assert race(3).turn(runs, lambda i: [3] if i != 2 else []) == Turn(3, (1, 0))


def test_those_that_are_no_finalists_do_not_run():
    runs = searched(0.60, 0.62, 0.61)
    assert Race(entrants(3), VARIANCES, finalists=(0, 1)).turn(runs, fresh) == Turn(3, (1, 0))


def test_a_tie_goes_to_the_default_else_to_the_cheaper():
    sharp = Variances(between=1.0, folds=1e-8, floor=0.0)
    runs = searched(0.600, 0.601, 0.602)
    assert race(3, variances=sharp).verdict(runs).winner == 0
    assert race(3, defaults=(1,), variances=sharp).verdict(runs).winner == 1
    assert race(3, variances=sharp, tie=0.0015).verdict(runs).winner == 1
    found = race(3, defaults=(0,), variances=sharp, tie=0.0005).verdict(runs)
    assert (found.winner, found.leader, found.rival) == (2, 2, 0)
    assert found.better + found.alike + found.worse == pytest.approx(1)


def test_how_sure_it_is_counts_against_the_best_of_the_other_defaults():
    runs = searched(0.60, 0.63, 0.61)
    found = race(3, defaults=(0, 2)).verdict(runs)
    assert (found.winner, found.rival) == (1, 2)
    assert found.chance == pytest.approx(race(3).posterior(runs).chance(1, 2))
    assert 0.5 < found.chance < 1
    cautious = Race(entrants(3, (0, 2)), VARIANCES, finalists=range(3), temperature=2.0).verdict(runs)
    assert 0.5 < cautious.chance < found.chance
    assert math.isnan(race(3).verdict(runs).chance)


def test_finalists_are_of_two_methods_with_the_defaults_to_beat():
    mean = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    found = Posterior(mean, np.eye(6), np.zeros(6))
    of_one = [Entrant("lora")] * 3 + [Entrant("adapter"), Entrant("lora", default=True), Entrant("prefix", True)]
    assert finalists(found, of_one, always=[5]) == [0, 1, 3, 4, 5]
    assert finalists(found, [Entrant("lora")] * 6) == [0, 1, 2]
    assert finalists(found, [Entrant(str(i), default=i == 1) for i in range(6)]) == [0, 1, 2]


def test_a_race_finds_better_winners_than_the_folds_of_the_search():
    """And what it says of them holds about as often as it says."""
    generator, gains, stated, held = np.random.default_rng(0), [], [], []
    field = [Entrant("default", default=True, prior=0.0), *[Entrant(f"method {i}") for i in range(7)]]
    for _ in range(200):
        true = generator.normal(0, VARIANCES.between**0.5, 8)
        gap = generator.normal(0, (VARIANCES.floor * VARIANCES.folds) ** 0.5, 8)
        scores = 0.6 + (true + gap)[:, None] + generator.normal(0, VARIANCES.folds**0.5, (8, 15))
        runs = [Run(i, block, scores[i, block]) for i in range(8) for block in range(SEARCH)]
        first = Race(field, VARIANCES).verdict(runs)
        chosen = Race(field, VARIANCES, Rules(), finalists(Race(field, VARIANCES).posterior(runs), field))
        while (turn := chosen.turn(runs, fresh)) and len(runs) < 8 * SEARCH + 16:
            runs += [Run(i, turn.block, scores[i, turn.block]) for i in turn.candidates]
        last = chosen.verdict(runs)
        gains.append(true[last.winner] - true[first.winner])
        if last.rival is not None:
            stated.append(last.chance)
            held.append(true[last.winner] > true[last.rival])
    assert np.mean(gains) > 3 * np.std(gains) / len(gains) ** 0.5
    assert np.mean(held) == pytest.approx(np.mean(stated), abs=0.08)
