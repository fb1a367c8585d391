"""The script that writes the package's portfolio, on a bank whose truth is known."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autopeft.search.portfolio import Portfolio
from tests.synthetic_bank import Recipe, write

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bank" / "portfolio.py"
RECIPE = Recipe(
    groups=6, sizes=(100, 400), methods=3, draws=3, repeats=1, cooled=(4, 12, 24), here=0.02, tested=0.003, luck=0.002
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The bank's truth, the script's portfolio, and what it printed."""
    folder = tmp_path_factory.mktemp("bank")
    truth = write(folder, RECIPE)
    out = folder / "portfolio.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, "--out", out], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return truth, Portfolio.from_json(out.read_text(encoding="utf-8")), done.stdout


def test_the_best_fixed_default_is_the_best_over_all_tasks_of_a_size(made):
    truth, known, printed = made
    assert [size.rows for size in known.sizes] == [100, 400]
    for size in known.sizes:
        means = {
            method: np.mean([score for (_, rows, config), score in truth.items()
                             if rows == size.rows and config == f"{method:08x}{0:08x}"])
            for method in range(RECIPE.methods)
        }  # fmt: skip
        assert size.default == f"method {max(means, key=means.get)}"
        assert size.steps == 24 * -(-size.rows // 16), "scores rise to the end"
        assert (size.tasks, size.groups) == (6, 6)
        assert f"{size.rows} rows: {size.default}'s default for {size.steps} steps" in printed


def test_every_default_has_an_entry_and_gains_are_over_the_best_one(made):
    _, known, _ = made
    defaults = [entry for entry in known.entries if entry.default]
    assert [entry.method for entry in defaults] == [f"method {m}" for m in range(RECIPE.methods)]
    for size in known.sizes:
        own = np.array([cell.rows == size.rows for cell in known.cells])
        fixed = next(entry for entry in defaults if entry.method == size.default)
        assert fixed.gains[own] == pytest.approx(0)
        assert (fixed.steps[own] == size.steps).all()


def test_gains_are_near_the_truth_in_points(made):
    """Nearer than their noise: a score on test rows is some 0.3 points off, and the difference of two half more."""
    truth, known, _ = made
    told, true = [], []
    for entry in (entry for entry in known.entries if entry.default):
        config = f"{int(entry.method.split()[1]):08x}{0:08x}"
        for place, cell in enumerate(known.cells):
            fixed = f"{int(known.size(cell.rows).default.split()[1]):08x}{0:08x}"
            told.append(entry.gains[place])
            true.append(100 * (truth[cell.task, cell.rows, config] - truth[cell.task, cell.rows, fixed]))
    assert np.corrcoef(told, true)[0, 1] > 0.9
    assert np.sqrt(np.mean(np.square(np.subtract(told, true)))) < 1


def test_what_it_brings_is_told_of_groups_left_out(made):
    _, known, _ = made
    for size in known.sizes:
        assert size.error > 0
        assert -1 < size.gain < 6


def test_where_all_that_differs_is_the_method_nothing_is_tried_but_the_best_default(tmp_path):
    import portfolio as script

    write(tmp_path, replace(RECIPE, here=0.0, everywhere=0.0, method=0.03))
    known = script.portfolio_of(script.Recorded.read(tmp_path))
    for size in known.sizes:
        assert len(known.order(size.rows, "classification", {entry.method for entry in known.entries})) == 1
        assert abs(size.gain) < 0.5


def test_it_is_small_and_its_lengths_are_told_apart(made):
    _, known, _ = made
    assert len(known.entries) < 3 + 20
    assert all(len(entry.training) == 2 for entry in known.entries)
    first = known.order(100, "classification", {entry.method for entry in known.entries})
    assert 1 < len(first) <= 6
    assert first[0].method == known.sizes[0].default
