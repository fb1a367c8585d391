import numpy as np
import pytest
from scipy.stats import norm

from autopeft.common.exceptions import SpecError
from autopeft.reporting import bootstrap as module
from autopeft.reporting.bootstrap import Bootstrap, interval_of
from autopeft.reporting.statistics import wilson
from autopeft.tasks.classification import Classification
from autopeft.tasks.metric import Metric
from autopeft.tasks.metrics import from_counts, names, scorer

METRICS = Classification.metrics
TRUE = np.random.default_rng(0).choice(list("abcd"), 200, p=[0.5, 0.3, 0.15, 0.05])


def wrong(share: float) -> np.ndarray:
    """The labels, but so many drawn anew; never "d", so that precision is divided by zero there."""
    generator = np.random.default_rng(1)
    return np.where(generator.random(200) < share, generator.choice(list("abc"), 200), np.where(TRUE == "d", "a", TRUE))


@pytest.mark.parametrize("metric", names())
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_metric_is_scikit_learns(metric, share):
    made = wrong(share)
    assert Bootstrap(METRICS[metric], TRUE, {"it": made}).score("it") == pytest.approx(scorer(metric)(TRUE, made))


@pytest.mark.parametrize("metric", names())
def test_rows_of_one_label_alone_have_a_score_too(metric):
    same = np.array(["a"] * 5)
    found = scorer(metric)(same, same)
    assert np.isfinite(found)
    assert Bootstrap(METRICS[metric], same, {"it": same}).score("it") == pytest.approx(found)


def test_a_metric_it_does_not_know_is_named():
    with pytest.raises(ValueError, match='"roc_auc"'):
        from_counts("roc_auc", np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)))


def test_the_interval_of_accuracy_is_near_wilsons():
    made = wrong(0.4)
    low, high = Bootstrap(METRICS["accuracy"], TRUE, {"it": made}).interval("it")
    expected = wilson(int(np.sum(made == TRUE)), 200)
    assert (low, high) == pytest.approx(expected, abs=0.01)


def test_its_spread_is_that_of_rows_drawn_one_by_one():
    made, metric = wrong(0.4), scorer("f1_macro")
    low, high = Bootstrap(METRICS["f1_macro"], TRUE, {"it": made}).interval("it")
    drawn = [metric(TRUE[rows], made[rows]) for rows in np.random.default_rng(1).integers(0, 200, (400, 200))]
    assert (low, high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)


def test_differences_are_paired():
    better = wrong(0.5)
    worse = better.copy()
    worse[:20] = "d"
    bootstrap = Bootstrap(METRICS["accuracy"], TRUE, {"better": better, "same": better.copy(), "worse": worse})
    (found,) = bootstrap.differences("better", ["worse"])
    lost = np.mean((better == TRUE)[:20]) / 10
    assert found.mean == pytest.approx(lost)
    # The two differ in 20 rows of 200 alone; of independent rows the spread would be several times that.
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(lost * (1 - lost) / 200), rel=0.25)
    assert found.low > 0
    assert found.p < 0.01
    (nothing,) = bootstrap.differences("better", ["same"])
    assert (nothing.mean, nothing.low, nothing.high, nothing.p) == (0.0, 0.0, 0.0, 1.0)
    assert bootstrap.differences("worse", ["better"])[0].mean == -found.mean
    both = bootstrap.differences("better", ["same", "worse"])
    assert [one.mean for one in both] == [0.0, found.mean]


def guesses(accuracies: list[float], seed: int, rows: int = 60) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Truths, and the answers of predictors that are right so often, mostly about the same rows."""
    generator = np.random.default_rng(seed)
    truths, hard = generator.choice(["yes", "no"], rows), generator.normal(size=rows)
    made = {}
    for number, accuracy in enumerate(accuracies):
        order = 0.8 * hard + 0.6 * generator.normal(size=rows)
        right = order < norm.ppf(accuracy)
        made[str(number)] = np.where(right, truths, np.where(truths == "yes", "no", "yes"))
    return truths, made


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_intervals_and_p_values_of_several_comparisons_agree(metric):
    seen = {True: 0, False: 0}
    for seed in range(40):
        truths, made = guesses([0.9, 0.85, 0.75, 0.9], seed)
        for one in Bootstrap(METRICS[metric], truths, made).differences("0", ["1", "2", "3"]):
            apart = one.low > 0 or one.high < 0
            seen[apart] += 1
            assert apart == (one.p <= 0.05)
    assert min(seen.values()) > 10


def test_any_of_several_equals_is_falsely_found_different_as_seldom_as_one_would_be():
    found = [
        min(one.p for one in Bootstrap(METRICS["accuracy"], truths, made).differences("0", ["1", "2", "3"])) <= 0.05
        for truths, made in (guesses([0.8] * 4, seed) for seed in range(400))
    ]
    assert 0.01 < np.mean(found) < 0.08  # 0.05, with two standard errors of 400 draws


def test_many_rows_are_drawn_in_parts(monkeypatch):
    made = wrong(0.4)
    whole = Bootstrap(METRICS["accuracy"], TRUE, {"it": made})
    monkeypatch.setattr(module, "LARGEST", 1000)
    parts = Bootstrap(METRICS["accuracy"], TRUE, {"it": made})
    assert parts.score("it") == whole.score("it")
    assert parts.interval("it") == whole.interval("it")


def test_a_metric_that_counts_do_not_tell_is_worked_out_for_each_draw():
    made = wrong(0.4)
    accuracy = METRICS["accuracy"]
    by_row = Bootstrap(Metric(accuracy.score, accuracy.of_written), TRUE, {"it": made})
    by_class = Bootstrap(accuracy, TRUE, {"it": made})
    assert by_row.score("it") == by_class.score("it")
    assert by_row.interval("it") == pytest.approx(by_class.interval("it"), abs=0.02)


def test_a_function_of_the_users_that_fails_on_a_draw_has_no_interval():
    made, accuracy = wrong(0.4), METRICS["accuracy"]

    def once(answers, truths):
        if len({*zip(answers, truths, strict=True)}) < len(cells):
            raise SpecError("a cell is missing")
        return np.asarray(accuracy.of_written(answers, truths))

    cells = {*zip(made, TRUE, strict=True)}
    metric = Metric(accuracy.score, accuracy.of_written, of_rows=once)
    found = Bootstrap(metric, TRUE, {"it": made})
    assert (found.score("it"), found.draws) == (np.mean(made == TRUE), 0)
    assert found.told == "has no interval, because its function fails on some draws of the rows (a cell is missing)"
    assert interval_of(metric, TRUE, made) is None
    assert interval_of(metric, TRUE[:5], made[:5]) is None
