"""What the scores of folds say of the candidates: by the formula, by its limits, and by how often it is right."""

import numpy as np
import pytest

from autopeft.search.posterior import Posterior, Run, Variances, residual_squares

KNOWN = Variances(between=4.0, folds=6.0, floor=0.3)


def drawn(generator, candidates=8, blocks=3, variances=KNOWN, prior=0.0):
    """True scores, and a run of every candidate on every block."""
    true = prior + generator.normal(0, variances.between**0.5, candidates)
    gap = generator.normal(0, (variances.floor * variances.folds) ** 0.5, candidates)
    noise = generator.normal(0, variances.folds**0.5, (candidates, blocks))
    scores = 60 + (true + gap)[:, None] + generator.normal(0, 5, blocks) + noise
    return true, [Run(i, b, scores[i, b]) for i in range(candidates) for b in range(blocks)]


def by_the_page(runs, prior, variances, wide=1e7):
    """The same with the blocks' effects among the unknowns, as it is written down for few candidates."""
    candidate, block, score = (np.array(column) for column in zip(*runs, strict=True))
    n, rows, blocks = len(prior), np.arange(len(score)), block.max() + 1
    design = np.zeros((len(score), n + blocks))
    design[rows, candidate] = design[rows, n + block] = 1
    gap = variances.floor * variances.folds
    seen = variances.between + gap
    precision = np.diag(np.r_[np.full(n, 1 / seen), np.full(blocks, 1 / wide)])
    cov = np.linalg.inv(precision + design.T @ design / variances.folds)
    mean = cov @ (precision @ np.r_[prior, np.zeros(blocks)] + design.T @ score / variances.folds)
    keep = variances.between / seen
    return prior + keep * (mean[:n] - prior), keep**2 * cov[:n, :n] + keep * gap * np.eye(n)


def test_it_is_the_formula_with_the_blocks_eliminated():
    generator = np.random.default_rng(0)
    _, runs = drawn(generator, blocks=5)
    runs = [run for run in runs if generator.random() < 0.7]
    prior = generator.normal(size=8)
    found, (mean, cov) = Posterior.of(runs, prior, KNOWN), by_the_page(runs, prior, KNOWN)
    for i in range(8):
        for j in range(i):
            theirs = mean[i] - mean[j], (cov[i, i] + cov[j, j] - 2 * cov[i, j]) ** 0.5
            assert found.difference(i, j) == pytest.approx(theirs, abs=1e-4)


def test_the_level_of_the_scores_and_of_the_priors_is_of_no_account():
    _, runs = drawn(np.random.default_rng(1))
    raised = [run._replace(score=run.score + 100 * (1 + run.block)) for run in runs]
    first, second = Posterior.of(runs, np.zeros(8), KNOWN), Posterior.of(raised, np.full(8, 40.0), KNOWN)
    assert first.difference(0, 1) == pytest.approx(second.difference(0, 1))


def test_one_that_never_ran_has_its_prior_beside_the_others():
    runs = [Run(i, b, score) for i, score in ((0, 1.0), (1, -1.0)) for b in range(1000)]
    found = Posterior.of(runs, [0.0, 0.0, 3.0], Variances(1e6, 1.0, 0.0))
    assert found.difference(0, 1)[0] == pytest.approx(2, abs=0.01)
    assert found.difference(2, 0) == pytest.approx((3 - 1, 1.5**0.5 * 1e3), rel=0.01)


def test_one_that_is_known_keeps_to_its_prior():
    runs = [Run(i, b, score) for i, score in ((0, 2.0), (1, 0.0)) for b in range(3)]
    alike = Posterior.of(runs, [0, 0], KNOWN).difference(0, 1)
    known = Posterior.of(runs, [0, 0], KNOWN, between=[KNOWN.between, 0.1]).difference(0, 1)
    assert known[0] < alike[0]
    assert known[1] < alike[1]
    certain = Posterior.of(runs * 10_000, [0, 0], KNOWN, between=[0.0, 0.0])
    assert certain.difference(0, 1)[0] == pytest.approx(0, abs=1e-3)


def test_folds_without_end_leave_the_floor_and_settle_who_leads():
    generator = np.random.default_rng(2)
    found = Posterior.of(drawn(generator, candidates=2, blocks=3000)[1], [0, 0], KNOWN)
    gap = KNOWN.floor * KNOWN.folds
    assert found.difference(0, 1)[1] ** 2 == pytest.approx(2 * KNOWN.between * gap / (KNOWN.between + gap), rel=0.01)
    leader = int(np.argmax(found.mean))
    assert found.chance_to_stay(leader, 1 - leader) > 0.999 > found.chance(leader, 1 - leader)


def test_of_what_it_calls_likely_just_so_many_come_true():
    """Of any pair, with the true variances."""
    generator, stated, true = np.random.default_rng(3), [], []
    for _ in range(1000):
        truth, runs = drawn(generator, candidates=4)
        found = Posterior.of(runs, np.zeros(4), KNOWN)
        stated.append([found.chance(0, 1), found.chance(2, 3, by=1.0)])
        true.append([truth[0] > truth[1], truth[2] > truth[3] + 1])
    stated, true = np.ravel(stated), np.ravel(true)
    for low in np.arange(0, 1, 0.1):
        among = (stated >= low) & (stated < low + 0.1)
        error = 3.5 * (0.25 / among.sum()) ** 0.5
        assert abs(stated[among].mean() - true[among].mean()) < error


def test_the_higher_mean_is_truly_higher_more_often_than_the_higher_fold_mean():
    """Where the priors tell something; without them the order is that of the folds."""
    generator, ours, plain = np.random.default_rng(4), 0.0, 0.0
    for _ in range(300):
        prior = generator.normal(0, 2, 8)
        truth, runs = drawn(generator, prior=prior)
        ours += truth[np.argmax(Posterior.of(runs, prior, KNOWN).mean)]
        plain += truth[np.argmax(np.reshape([run.score for run in runs], (8, 3)).mean(axis=1))]
    assert ours > plain + 0.1 * 300


def test_variances_are_estimated_from_the_runs():
    generator = np.random.default_rng(5)
    found = [Variances.estimated(drawn(generator, 12, 3)[1], np.zeros(12), KNOWN.floor) for _ in range(100)]
    assert np.mean([one.folds for one in found]) == pytest.approx(KNOWN.folds, rel=0.05)
    assert np.mean([one.between for one in found]) == pytest.approx(KNOWN.between, rel=0.1)
    assert {one.degrees for one in found} == {22}
    with pytest.raises(ValueError, match="two candidates that ran two blocks"):
        Variances.estimated([Run(0, 0, 1.0), Run(0, 1, 2.0), Run(1, 0, 1.0)], [0, 0], 0.3)


def test_residuals_leave_out_what_blocks_and_candidates_explain():
    exact = [Run(i, b, 3 * i - 2 * b) for i in range(4) for b in range(3) if (i, b) != (2, 1)]
    squares, degrees = residual_squares(exact)
    assert (degrees, squares) == (11 - 4 - 3 + 1, pytest.approx(0, abs=1e-18))
    assert residual_squares([]) == (0.0, 0)
    apart = [Run(0, 0, 1.0), Run(0, 1, 2.0), Run(1, 2, 1.0), Run(1, 3, 5.0)]  # they share no block
    assert residual_squares(apart)[1] == 0


def test_a_studys_residuals_count_beside_recorded_ones_by_their_degrees_of_freedom():
    _, runs = drawn(np.random.default_rng(6), 6, 3)
    squares, degrees = residual_squares(runs)
    recorded = Variances(4.0, 6.0, 0.3, degrees=10)
    assert recorded.seen(runs).folds == pytest.approx((60 + squares) / (10 + degrees))
    assert KNOWN.seen(runs) == KNOWN


def test_folds_that_all_agree_make_nothing_certain_by_division():
    runs = [Run(i, b, 1.0) for i in range(3) for b in range(3)]
    found = Posterior.of(runs, np.zeros(3), Variances.estimated(runs, np.zeros(3), 0.2))
    assert found.chance(0, 1) == pytest.approx(0.5)
