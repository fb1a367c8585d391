"""What did best on recorded tasks, and what of it is tried first."""

import math
from dataclasses import replace

import numpy as np
import pytest

from autopeft.search.portfolio import Entry, Portfolio, by_group, greedy, nearness
from tests.recorded import TAGS, TEXTS, entry, portfolio, slow_lora, wide_adapter

METHODS = ("adapter", "lora", "prefix_tuning")
GROUPS = list("abcdef")
ONES = np.ones(6)


def test_a_task_counts_less_the_more_doublings_lie_between_and_if_it_is_of_another_kind():
    assert nearness(100, TEXTS, 100, TEXTS) == 1
    assert nearness(100, TEXTS, 200, TEXTS) == nearness(200, TEXTS, 100, TEXTS) == pytest.approx(math.exp(-0.5))
    assert nearness(100, TAGS, 400, TEXTS) == pytest.approx(0.3 * math.exp(-2))


def test_the_next_entry_is_the_one_that_adds_most_to_those_before_it():
    table = np.array([
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [3.0, 3.0, 3.0, 3.2, -9.0, -9.0],
        [2.9, 2.9, 2.9, 3.1, 0.0, 0.0],  # as good, but for what the other one brings already
        [-5.0, -5.0, 0.1, 0.2, 2.0, 2.0],
    ])  # fmt: skip
    assert greedy(table, ONES, GROUPS, 0, most=2) == [0, 1]
    assert greedy(table, ONES, GROUPS, 0) == [0, 1, 3]


def test_what_helps_one_group_alone_is_not_tried():
    """Chosen without that group it is not found, however much it gains there."""
    lucky = np.array([[0.0] * 6, [0, 0, 0, 0, 0, 50.0]])
    assert greedy(lucky, ONES, GROUPS, 0) == [0]
    steady = np.array([[0.0] * 6, [0.4, 0.6, 0.5, 0.5, 0.6, 0.4]])
    assert greedy(steady, ONES, GROUPS, 0) == [0, 1]
    assert greedy(steady, ONES, GROUPS, 0, least=0.6) == [0], "less than is worth a trial"
    assert greedy(steady, ONES, ["a"] * 6, 0) == [0], "one group tells nothing of another"
    assert greedy(steady, np.array([1.0, 0, 0, 0, 0, 0]), GROUPS, 0) == [0], "nor do those that do not count"


def test_weights_decide_for_whom_it_is_chosen():
    table = np.array([[0.0] * 6, [1.0, 1.1, 0.9, -2, -2, -2], [-2, -2, -2, 1.0, 1.1, 0.9]])
    near_first = np.array([1.0, 1.0, 1.0, 0.05, 0.05, 0.05])
    assert greedy(table, near_first, GROUPS, 0)[1] == 1
    assert greedy(table, near_first[::-1], GROUPS, 0)[1] == 2


def test_what_was_not_recorded_gains_nothing_and_costs_nothing():
    table = np.array([[0.0] * 6, [np.nan, np.nan, 1.0, 1.1, 0.9, 1.0]])
    assert greedy(table, ONES, GROUPS, 0) == [0, 1]


def test_a_mean_over_groups_counts_each_once():
    values = np.array([1.0, 1.0, 1.0, 4.0])
    mean, error = by_group(values, np.ones(4), ["a", "a", "a", "b"])
    assert mean == 2.5
    assert error == pytest.approx(np.std([1, 4], ddof=1) / math.sqrt(2))
    assert math.isnan(by_group(values, np.ones(4), ["a"] * 4)[1])


def test_a_written_portfolio_reads_the_same():
    gaps = entry("lora", [np.nan, 1, 2, 3, 4, 5, 6.126], r=4)
    gaps.steps[0] = np.nan
    written = portfolio(gaps)
    again = Portfolio.from_json(written.to_json())
    assert (again.model, again.cells, again.sizes) == (written.model, written.cells, written.sizes)
    for before, after in zip(written.entries, again.entries, strict=True):
        assert isinstance(after, Entry)
        assert (after.method, after.default, after.params) == (before.method, before.default, before.params)
        assert after.training == before.training
        np.testing.assert_allclose(after.gains, before.gains, atol=0.005)
        np.testing.assert_array_equal(after.steps, before.steps)
    alone = written.sizes[0]._replace(gain=math.nan, error=math.nan)
    told = Portfolio.from_json(Portfolio("m", written.cells, (alone,), written.entries).to_json()).sizes[0]
    assert math.isnan(told.gain)


def test_the_best_fixed_default_comes_first_and_defaults_are_ranked():
    known = portfolio(wide_adapter())
    assert [one.method for one in known.defaults(100, METHODS)] == ["lora", "prefix_tuning", "adapter"]
    assert [one.method for one in known.defaults(100, ("adapter", "prefix_tuning"))] == ["prefix_tuning", "adapter"]
    assert known.defaults(100, ("a_strangers",)) == known.order(100, TEXTS, ("a_strangers",)) == []
    assert known.order(100, TEXTS, METHODS)[0] is known.entries[1]


def test_what_is_tried_depends_on_the_kind_and_on_what_is_searched():
    wide, slow = wide_adapter(), slow_lora()
    known = portfolio(wide, slow)
    lora = known.entries[1]
    assert known.order(100, TEXTS, METHODS) == [lora, wide, slow]
    assert known.order(100, TEXTS, ("lora", "prefix_tuning")) == [lora, slow]
    assert known.order(100, TEXTS, ("lora",)) == [lora, slow]


def test_far_from_all_recorded_sizes_every_task_counts_the_same():
    known = portfolio()
    assert known.weights(1600, TEXTS).tolist() != known.weights(1700, TEXTS).tolist() == [1.0] * 14
    assert known.weights(100, TEXTS)[0] == 1
    assert (known.weights(90, TEXTS) > 0).tolist() == [True] * 7 + [False] * 7, "400 is over four times as many"


def test_the_length_is_that_of_the_nearest_sizes_in_steps():
    known = portfolio()
    lora = known.entries[1]
    assert known.steps(lora, 10) == known.steps(lora, 100) == pytest.approx(168)
    assert known.steps(lora, 10**6) == known.steps(lora, 400) == pytest.approx(300)
    assert known.steps(lora, 200) == pytest.approx((168 * 300) ** 0.5)
    lora.steps[7:] = np.nan
    assert known.steps(lora, 400) == pytest.approx(168), "recorded in one size alone"


def test_what_to_expect_is_told_with_what_is_behind_it():
    known = portfolio(slow_lora())
    lora, slow = known.entries[1], known.entries[3]
    gain = known.expected(slow, lora, 100, TEXTS)
    assert gain.gain == pytest.approx(0.5, abs=0.02)
    assert 0 < gain.error < 0.1
    assert (gain.tasks, gain.groups) == (7, 7)
    slow.gains[:] = np.nan
    assert known.expected(slow, lora, 100, TEXTS).groups == 0


def test_a_method_is_expected_to_do_as_it_did_less_what_may_be_chance():
    steady, erratic = [-4.0, -4.2, -3.8, -4.1, -3.9, -4, -4], [-30.0, 10, 6, -8, 4, 2, -12]
    known = portfolio()
    known = replace(known, entries=(
        entry("adapter", steady, default=True), entry("lora", 0.0, default=True),
        entry("prefix_tuning", erratic, default=True),
    ))  # fmt: skip
    found = known.expected_of_methods(100, TEXTS, METHODS)
    assert found["adapter"] == pytest.approx(-4, abs=0.1)
    mean = known.expected(known.entries[2], known.entries[1], 100, TEXTS).gain
    assert mean / 2 < found["prefix_tuning"] < 0, "its mean rests on one group"
    assert "lora" not in found, "it is the one that others are compared with"


def test_of_a_method_recorded_on_one_group_nothing_is_expected():
    once = entry("adapter", [-9.0] + [np.nan] * 6, default=True)
    known = replace(portfolio(), entries=(once, entry("lora", 0.0, default=True)))
    assert known.expected_of_methods(100, TEXTS, METHODS) == {}
