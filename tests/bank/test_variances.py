"""How widely scores scatter is told beyond what candidates and folds explain."""

from types import SimpleNamespace

import numpy as np
import pytest
from variances import folds_table, of_folds


def cell(deviation: float) -> SimpleNamespace:
    generator = np.random.default_rng(0)
    candidates, folds = generator.normal(0, 0.2, (200, 1, 1)), generator.normal(0, 0.1, (1, 1, 3))
    return SimpleNamespace(name="one", size=100, end=candidates + folds + generator.normal(0, deviation, (200, 1, 3)))


def test_the_variance_of_folds_leaves_out_what_candidates_and_folds_explain():
    variance, degrees = of_folds(cell(0.03))
    assert degrees == 199 * 2
    assert variance == pytest.approx(0.03**2, rel=0.15)


def test_a_fold_of_fifty_rows_usually_deviates_by_five_points():
    (row,) = folds_table(SimpleNamespace(cells={("one", 100): cell(0.05)})).itertuples(index=False)
    assert row[1] == 50
    assert row.folds == pytest.approx(row.usual, rel=0.15) == pytest.approx(5, rel=0.15)
