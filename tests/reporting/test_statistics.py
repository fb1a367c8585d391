"""Against values worked out by hand, or by another library."""

import math

import numpy as np
import pytest
from scipy import stats

from autopeft.reporting.statistics import (
    corrected_t_test,
    holm,
    mcnemar,
    one_standard_error,
    pareto_front,
    standard_error,
    wilson,
)


def test_the_corrected_t_test_worked_out_by_hand():
    # d = 0.02, 0.04, 0.06: mean 0.04, variance 0.0004; with three folds 1/3 + 1/2 of it is 0.000333
    found = corrected_t_test([0.72, 0.74, 0.76], [0.70, 0.70, 0.70])
    error = math.sqrt(5 / 6 * 0.0004)
    assert found.mean == pytest.approx(0.04)
    assert found.high - found.mean == pytest.approx(4.302653 * error, rel=1e-6)  # t of 2 degrees at 97.5%
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert found.p == pytest.approx(2 * stats.t.sf(0.04 / error, 2))


def test_without_its_correction_it_is_the_paired_t_test_and_with_it_less_sure():
    first, second = np.random.default_rng(0).normal([[0.8], [0.78]], 0.01, (2, 10))
    plain, found = stats.ttest_rel(first, second), corrected_t_test(first, second)
    shrunk = plain.statistic * math.sqrt((1 / 10) / (1 / 10 + 1 / 9))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(shrunk), 9))
    assert found.p > plain.pvalue
    assert (found.low > 0) == (found.p < 0.05)


def test_it_falsely_finds_a_difference_between_equals_less_often_than_the_plain_test():
    # A fold's score depends on rows that other folds train on too: what all folds share is the same for all of them,
    # and differs from one data set to the next. The plain test takes it for a difference.
    generator = np.random.default_rng(1)
    shared, own = generator.normal(0, 1, (2000, 1)), generator.normal(0, 1, (2000, 5))
    differences = shared * math.sqrt(1 / 4) + own
    corrected = np.mean([corrected_t_test(d, np.zeros(5)).p <= 0.05 for d in differences])
    plain = np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue <= 0.05)
    assert corrected == pytest.approx(0.05, abs=0.015)
    assert plain > 0.1


def test_the_turn_of_the_two_turns_the_sign_alone():
    one, other = corrected_t_test([0.9, 0.8], [0.7, 0.75]), corrected_t_test([0.7, 0.75], [0.9, 0.8])
    assert (other.mean, other.low, other.high, other.p) == pytest.approx((-one.mean, -one.high, -one.low, one.p))


def test_where_no_fold_differs_from_another_there_is_no_test():
    assert corrected_t_test([0.5, 0.6, 0.7], [0.5, 0.6, 0.7]).p == 1.0
    assert corrected_t_test([0.6, 0.7, 0.8], [0.5, 0.6, 0.7]) is None
    assert corrected_t_test([0.6], [0.5]) is None
    assert corrected_t_test([], []) is None


def test_holm_worked_out_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3·0.01; 2·0.03; no less than that, 1·0.04
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


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


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 0), (12, 30), (9, 9)])
def test_mcnemars_test_is_the_binomial_one(first, second):
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)
