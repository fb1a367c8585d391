"""Against values worked out by hand, or by another library."""

import math

import numpy as np
import pytest
from scipy import stats

from autopeft.reporting.statistics import (
    in_a_word,
    max_t,
    one_standard_error,
    pareto_front,
    simultaneous,
    standard_error,
    wilson,
)


def pair(first, second):
    return max_t([first, second], [(0, 1)])


def test_of_one_pair_it_is_the_corrected_t_test():
    # d = 0.02, 0.04, 0.06: mean 0.04, variance 0.0004; with three folds 1/3 + 1/2 of it is 0.000333
    (found,) = pair([0.72, 0.74, 0.76], [0.70, 0.70, 0.70])
    error = math.sqrt(5 / 6 * 0.0004)
    assert found.mean == pytest.approx(0.04)
    assert found.high - found.mean == pytest.approx(4.302653 * error, rel=0.03)  # t of 2 degrees at 97.5%
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert found.p == pytest.approx(2 * stats.t.sf(0.04 / error, 2), abs=0.01)


def test_without_its_correction_it_is_the_paired_t_test_and_with_it_less_sure():
    first, second = np.random.default_rng(0).normal([[0.8], [0.78]], 0.01, (2, 10))
    plain, (found,) = stats.ttest_rel(first, second), pair(first, second)
    shrunk = plain.statistic * math.sqrt((1 / 10) / (1 / 10 + 1 / 9))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(shrunk), 9), abs=0.005)
    assert found.p > plain.pvalue


def test_it_falsely_finds_a_difference_between_equals_less_often_than_the_plain_test():
    # A fold's score depends on rows that other folds train on too: what all folds share is the same for all of them,
    # and differs from one data set to the next. The plain test takes it for a difference.
    generator = np.random.default_rng(1)
    shared, own = generator.normal(0, 1, (2000, 1)), generator.normal(0, 1, (2000, 5))
    differences = shared * math.sqrt(1 / 4) + own
    corrected = np.mean([pair(d, np.zeros(5))[0].p <= 0.05 for d in differences])
    plain = np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue <= 0.05)
    assert corrected == pytest.approx(0.05, abs=0.015)
    assert plain > 0.1


def test_of_several_pairs_any_is_falsely_found_as_seldom_as_one_would_be():
    generator, pairs = np.random.default_rng(2), [(0, 1), (0, 2), (0, 3), (1, 2)]
    # Candidates whose means deviate as the correction takes them to: by 1/k + 1/(k - 1) of a fold's variance.
    table = generator.normal(0, 1, (2000, 4, 3)) + generator.normal(0, math.sqrt(1 / 2), (2000, 4, 1))
    found = np.mean([min(one.p for one in max_t(scores, pairs)) <= 0.05 for scores in table])
    assert found == pytest.approx(0.05, abs=0.015)


def test_several_comparisons_ask_more_of_each():
    scores = [[0.800, 0.810, 0.805], [0.770, 0.788, 0.776], [0.79, 0.81, 0.81], [0.78, 0.80, 0.79]]
    (alone,), (same, *_) = max_t(scores, [(0, 1)]), max_t(scores, [(0, 1), (0, 2), (0, 3), (1, 2)])
    assert same.mean == alone.mean
    assert same.p > alone.p
    assert same.low < alone.low


def test_an_interval_beyond_zero_is_a_small_p_value():
    generator, pairs = np.random.default_rng(3), [(0, 1), (0, 2), (1, 2)]
    seen = {True: 0, False: 0}
    for scores in generator.normal([[0.8], [0.78], [0.7]], 0.01, (200, 3, 3)):
        for one in max_t(scores, pairs):
            apart = one.low > 0 or one.high < 0
            seen[apart] += 1
            assert apart == (one.p <= 0.05)
    assert min(seen.values()) > 50


def test_all_that_learnt_tell_how_folds_deviate():
    calm = [[0.80, 0.81, 0.80], [0.78, 0.79, 0.79]]
    more = max_t([*calm, [0.70, 0.71, 0.70], [0.71, 0.72, 0.72]], [(0, 1)])[0]
    assert more.p < pair(*calm)[0].p
    wild = [*calm, [0.3, 0.8, 0.3]]
    assert max_t(wild, [(0, 1)], [0, 1])[0].high == pytest.approx(pair(*calm)[0].high, rel=0.03)
    assert max_t(wild, [(0, 1)])[0].p > 0.5


def test_the_turn_of_the_two_turns_the_sign_alone():
    (one,), (other,) = pair([0.9, 0.8], [0.7, 0.75]), pair([0.7, 0.75], [0.9, 0.8])
    assert (other.mean, other.low, other.high, other.p) == pytest.approx((-one.mean, -one.high, -one.low, one.p))


def test_where_no_fold_differs_from_another_there_is_no_test():
    assert pair([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]) == []
    assert pair([0.6, 0.7, 0.8], [0.5, 0.6, 0.7]) == []
    assert pair([0.6], [0.5]) == []
    assert pair([], []) == []
    assert max_t([[0.5, 0.6]], []) == []


def test_what_never_varies_is_certain_and_no_difference_is_none():
    largest = np.sort(np.abs(np.random.default_rng(0).normal(size=999)))
    certain, none, usual = simultaneous([0.1, 0.0, 0.02], [0.0, 0.0, 0.01], largest)
    assert (certain.low, certain.high, certain.p) == (0.1, 0.1, 0.001)
    assert (none.low, none.high, none.p) == (0.0, 0.0, 1.0)
    assert usual.p == pytest.approx(2 * stats.norm.sf(2), abs=0.02)
    assert usual.low == pytest.approx(0.02 - 1.96 * 0.01, abs=0.002)


@pytest.mark.parametrize(
    ("lead", "real", "word"),
    [(0.02, True, "significant"), (0.02, False, "inconclusive"), (0.0, False, "tie"), (-0.00004, False, "tie")],
)
def test_a_lead_is_significant_inconclusive_or_a_tie(lead, real, word):
    assert in_a_word(lead, real) == word


def test_the_standard_error_is_scipys():
    assert standard_error([0.7, 0.8, 0.75]) == pytest.approx(stats.sem([0.7, 0.8, 0.75]))
    assert math.isnan(standard_error([0.7]))


@pytest.mark.parametrize(
    ("scores", "errors", "costs", "chosen"),
    [
        ([0.80, 0.79, 0.70], [0.02, 0.0, 0.0], [1000, 10, 1], 1),  # the last one is too far below
        ([0.80, 0.79, 0.70], [0.005, 0.5, 0.5], [1000, 10, 1], 0),  # the best one's error counts, not the others'
        ([0.80, 0.80], [0.0, 0.0], [20, 10], 1),
        ([0.80, 0.79, 0.795], [0.02, 0.0, 0.0], [1000, 10, 10], 2),
        ([0.80, 0.79], [math.nan, 0.0], [1000, 10], 0),
    ],
)
def test_the_one_standard_error_rule(scores, errors, costs, chosen):
    assert one_standard_error(scores, errors, costs) == chosen


def test_the_pareto_front_is_what_no_other_beats():
    generator = np.random.default_rng(2)
    scores, costs = generator.integers(0, 12, 60) / 10, generator.integers(0, 12, 60)
    front = pareto_front(scores, costs)
    points = list(zip(scores, costs, strict=True))
    beaten = {
        p for p in points for q in points if q[0] >= p[0] and q[1] <= p[1] and (q[0] > p[0] or q[1] < p[1])
    }  # fmt: skip
    assert {points[i] for i in front} == set(points) - beaten
    assert len(front) == len({points[i] for i in front})
    assert [costs[i] for i in front] == sorted(costs[i] for i in front)
    assert pareto_front([], []) == []


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (7, 10), (109, 180), (180, 180)])
def test_wilsons_interval_is_scipys(hits, rows):
    expected = stats.binomtest(hits, rows).proportion_ci(method="wilson")
    assert wilson(hits, rows) == pytest.approx((expected.low, expected.high))
