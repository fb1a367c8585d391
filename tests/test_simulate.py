"""The simulator of studies, on banks of curves whose truth is known."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from autopeft.methods.length import epochs_for
from autopeft.search.portfolio import MOST_ENTRIES
from autopeft.search.pruner import make_pruner
from autopeft.search.race import Rules
from autopeft.training.rungs import doubled, rung_ends
from tests.synthetic_bank import Recipe, write

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "bank"))

import bars
import constants as beforehand
from cells import Bank
from effects import halves_noise, two_way
from policies import SHIPPED, A, AtRisk, B, Batch, C, D, Halving, Never, Policy, with_protected
from pruning import plot, table_of
from replay import replay
from simulate import best_of, by_cell, evaluate, summary
from trials import Search

BANK = Path(__file__).parents[1] / "benchmarks" / "bank"
SMALL = Recipe(groups=3, methods=2, draws=2, repeats=2)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A bank, and the true scores of its candidates."""
    folder = tmp_path_factory.mktemp("bank")
    truth = write(folder, Recipe(groups=6, tested=0.003, luck=0.002))
    return Bank.read(folder), truth


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    write(folder, SMALL)
    return folder


def first(bank):
    cell = next(iter(bank.cells.values()))
    return cell, beforehand.fit(bank.without(cell.group), cell.size, cell.kind)


def copied(folder, to, **changes):
    """A bank with tables changed by functions of them."""
    for name in ("tasks", "configs", "runs", "points"):
        table = pd.read_parquet(folder / f"{name}.parquet")
        (changes[name](table) if name in changes else table).to_parquet(to / f"{name}.parquet")
    return to


def test_a_cell_has_what_was_recorded(small):
    bank, points = Bank.read(small), pd.read_parquet(small / "points.parquet")
    assert (len(bank.cells), bank.groups) == (3, ["group 0", "group 1", "group 2"])
    cell = bank.cell("task 1", 100)
    assert (cell.group, cell.kind, cell.size, cell.majority) == ("group 1", "classification", 100, 0.3)
    assert cell.default.sum() == 2
    assert set(cell.method) == {"method 0", "method 1"}
    assert set(cell.length) == {24.0}
    assert list(cell.epochs[0]) == list(SMALL.epochs)
    which = list(cell.config).index(f"{1:08x}{1:08x}")
    mine = points[points.run == f"task 1.100.{cell.config[which]}.1.2"].reset_index()
    assert list(cell.score[which, 1, 2]) == list(mine.val_score)
    assert list(cell.rows[which]) == list(mine.rows)
    assert cell.end[which, 1, 2] == mine.val_score.iloc[-1]
    assert list(cell.test[which, 1, 2]) == [mine.test_score_a.iloc[-1], mine.test_score_b.iloc[-1]]
    assert cell.truth[which] == pytest.approx(cell.test[which].mean())


def test_a_run_with_cooled_points_serves_a_candidate_for_each(tmp_path):
    write(tmp_path, replace(SMALL, cooled=(4, 24)))
    cell, points = Bank.read(tmp_path).cell("task 0", 100), pd.read_parquet(tmp_path / "points.parquet")
    assert sorted(cell.length) == [4] * 4 + [24] * 4
    short = cell.nearest(cell.config[0], 5)
    mine = points[(points.run == f"task 0.100.{cell.config[0]}.0.1") & (points.weights == "cooled")]
    assert cell.end[short, 0, 1] == mine.val_score.iloc[0] != mine.val_score.iloc[1]
    assert (cell.end_rows[short], cell.end_rows[cell.nearest(cell.config[0], 24)]) == (400, 2400)


def test_a_run_that_diverged_counts_as_whoever_looks_at_no_input(small, tmp_path):
    name = f"task 0.100.{0:016x}.0.1"

    def diverged(runs):
        return runs.assign(state=runs.state.astype(str).mask(runs.run == name, "diverged"))

    kept = copied(small, tmp_path, runs=diverged, points=lambda p: p[(p.run != name) | (p.epochs <= 4)])
    cell, whole = Bank.read(kept).cell("task 0", 100), Bank.read(small).cell("task 0", 100)
    assert (cell.score[0, 0, 1, :3] == whole.score[0, 0, 1, :3]).all()
    assert (cell.score[0, 0, 1, 3:] == 0.3).all()
    assert cell.end[0, 0, 1] == 0.3
    assert cell.truth[0] < whole.truth[0]


def test_a_run_that_was_refused_is_none(small, tmp_path):
    def refused(runs):
        return runs.assign(state=runs.state.astype(str).mask(runs.config == f"{0:016x}", "refused"))

    assert f"{0:016x}" not in Bank.read(copied(small, tmp_path, runs=refused)).cell("task 0", 100).config


def test_a_model_of_all_rows_has_its_place(small, tmp_path):
    name, refit = f"task 0.100.{0:016x}.0.1", "refit"

    def runs(table):
        own = table[table.run == name].assign(run=refit, fold=-1, planned_steps=252)
        return pd.concat([table, own])

    def points(table):
        return pd.concat([table, table[(table.run == name) & (table.epochs == 24)].assign(run=refit, test_score_a=0.9)])

    cell = Bank.read(copied(small, tmp_path, runs=runs, points=points)).cell("task 0", 100)
    assert cell.refit[0, 0] == 0.9
    assert np.isnan(cell.refit[1:]).all()
    assert len(cell.config) == 4


def test_a_folder_without_a_table_says_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match=r"has no tasks\.parquet"):
        Bank.read(tmp_path)


def test_effects_are_found_in_a_table_with_gaps():
    generator = np.random.default_rng(0)
    row, column = generator.normal(size=12), generator.normal(size=7)
    table = row[:, None] + column
    table[generator.random(table.shape) < 0.3] = np.nan
    found = two_way(table, np.linspace(0.2, 1, 7), rounds=500)
    assert found.row == pytest.approx(row - row.mean(), abs=1e-4)
    assert found.fitted == pytest.approx(row[:, None] + column, abs=1e-4)


def test_the_noise_of_test_rows_is_seen_in_the_two_halves():
    generator = np.random.default_rng(0)
    halves = generator.normal(size=(4000, 1)) + generator.normal(0, 0.2, (4000, 2)) + [0.0, 5.0]
    assert halves_noise(halves) == pytest.approx(0.2**2 / 2, rel=0.1)


def test_what_others_advise_is_what_is_true(written):
    """With six groups: the best default elsewhere, and the variances of folds."""
    bank, truth = written
    cell, found = first(bank)
    defaults = {config: [t for (task, _, c), t in truth.items() if c == config and task != cell.task]
                for config in cell.config[cell.default]}  # fmt: skip
    assert found.comparator == (max(defaults, key=lambda config: np.mean(defaults[config])), 24.0)
    assert found.portfolio[0] == found.comparator[0]
    assert len(set(found.portfolio)) == len(found.portfolio) <= MOST_ENTRIES
    assert found.variances.folds == pytest.approx(0.02**2, rel=0.15)
    assert found.variances.floor == pytest.approx(0.2, abs=0.15)
    assert found.between_known**0.5 == pytest.approx(0.01, rel=0.4)
    assert found.variances.between**0.5 == pytest.approx(0.014, rel=0.5)
    assert found.known[found.comparator[0]] == 0 >= max(found.known[name] for name in cell.config[cell.default])
    errors = [found.slopes[fraction].variance for fraction in (1 / 24, 1 / 4)]
    assert errors[0] > errors[1]


def test_a_group_tells_nothing_to_its_own_replays(small, tmp_path):
    """Its scores may be what they like: what is known beforehand stays, to the last digit."""

    def upside_down(points):
        mine = points.run.str.startswith("task 0.")
        columns = ["val_score", "test_score_a", "test_score_b"]
        return points.assign(**{name: points[name].mask(mine, 1 - points[name]) for name in columns})

    before, after = Bank.read(small), Bank.read(copied(small, tmp_path, points=upside_down))
    assert (before.cell("task 0", 100).truth != after.cell("task 0", 100).truth).all()
    assert first(before)[1] == first(after)[1]
    other = [beforehand.fit(bank.without("group 1"), 100, "classification") for bank in (before, after)]
    assert other[0] != other[1]
    with pytest.raises(ValueError, match="Record a second group"):
        beforehand.fit([], 100, "classification")


@pytest.mark.parametrize("seed", range(5))
def test_todays_policy_stops_what_optuna_would(written, seed):
    """Trial by trial: a study in Optuna that is told the same scores has the same rungs, states and winner."""
    cell, known = first(written[0])
    trace, search = replay(cell, replace(B, length="longest"), known, seed)
    study = optuna.create_study(direction="maximize", pruner=make_pruner("successive_halving", 6))
    ends, rows = rung_ends(24, 100, int(epochs_for(100).high)), 0.0  # as a live study of so many rows
    for candidate in trace.tried:
        trial = study.ask()
        for number, epochs in enumerate(ends, 1):
            last = number == len(ends)
            one = Search(cell, 0, known, 0, early=False)
            one.ends, one.end, one._score = search.ends, search.end, search._score
            trial.report(float(search.end[candidate] if last else one.reach([candidate], epochs).score[0]), number)
            if trial.should_prune() and not last and not cell.default[candidate]:
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(search.end[candidate]))
        rows += 3 * 100 * epochs
    completed = [trial.number for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert [trace.tried[number] for number in completed] == trace.complete
    assert trace.tried[study.best_trial.number] == trace.winner
    assert trace.rows == rows
    assert len(trace.complete) < len(trace.tried) == 16


@pytest.mark.parametrize("seed", range(3))
def test_two_defaults_are_protected_and_the_others_are_pruned_like_any_trial(written, seed):
    cell, known = first(written[0])
    every, two = (
        replay(cell, replace(SHIPPED, race=None, pruner=Halving(two=which)), known, seed) for which in (False, True)
    )
    defaults = set(np.flatnonzero(cell.default))
    assert defaults & set(every[0].tried) <= set(every[0].complete)
    assert two[1].comparator in two[0].complete
    assert len(defaults & set(two[0].complete)) < len(defaults)
    assert two[0].rows < every[0].rows
    assert doubled(2, 24) == [2, 4, 8, 16, 24]
    assert doubled(12, 8) == [8]


def test_the_sooner_pruners_judge_the_more_they_spare(written, tmp_path):
    table = table_of(written[0], 2).set_index(["pruner", "first rung"])
    spared = table.loc["one after the other"].spared
    assert spared.is_monotonic_decreasing
    assert spared[1.0] > 0.5 > table.spared["never", 0.0] == 0
    assert (table[1:].spared > 0).all()
    plot(table.reset_index(), tmp_path / "pruning.png")
    assert (tmp_path / "pruning.png").stat().st_size > 10_000


def test_a_batch_keeps_the_best_and_the_two_protected(written):
    cell, known = first(written[0])
    trace, search = replay(cell, replace(D, race=None), known, 0)
    assert (len(trace.tried), len(trace.complete)) == (16, 5)
    assert search.comparator in trace.complete
    assert trace.rows == 3 * 100 * (8 * 8 + 3 * 16 + 5 * 24)
    assert with_protected([1, 2, 3, 4, 5], [5, 2], 3) == [1, 2, 5]
    assert with_protected([1, 2, 3, 4, 5], [5, 4], 2) == [5, 4]
    assert with_protected([1, 2, 3], [1, 2], 2) == [1, 2]


def test_one_epoch_for_all_and_the_rest_for_the_best(written):
    cell, known = first(written[0])
    policy = Policy("", length="longest", pruner=Batch((1,), (1.0,), protect=False))
    trace, search = replay(cell, policy, known, 0)
    assert trace.rows == 3 * 100 * (15 * 1 + 24)
    assert trace.winner == max(trace.tried, key=lambda i: search._score[i, 0])


def test_the_larger_the_risk_the_more_is_pruned(written):
    cell, known = first(written[0])
    spared, kept = {}, {}
    for risk in (0.001, 0.1, 0.4):
        traces = [replay(cell, replace(D, race=None, pruner=AtRisk(risk=risk)), known, seed)[0] for seed in range(6)]
        kept[risk] = np.mean([len(trace.complete) for trace in traces])
        spared[risk] = np.mean([1 - trace.rows / trace.rows_full for trace in traces])
    assert kept[0.001] > kept[0.1] > kept[0.4]
    assert spared[0.001] < spared[0.1] < spared[0.4]


def test_lengths_are_those_that_the_policy_wants(tmp_path):
    write(tmp_path, replace(SMALL, cooled=(4, 12, 24)))
    cell, known = first(Bank.read(tmp_path))
    lengths = {
        length: {float(cell.length[i]) for seed in range(3)
                 for i in replay(cell, Policy("", length=length, pruner=Never()), known, seed)[0].tried}
        for length in ("short", "longest", "drawn", "advised")
    }  # fmt: skip
    assert (lengths["short"], lengths["longest"], lengths["drawn"]) == ({4}, {24}, {4, 12, 24})
    assert lengths["advised"] == {known.length_of(method) for method in cell.method}


def test_training_ends_early_where_the_folds_fall(tmp_path):
    """At the first point that is a third of the rows behind the best; and the best, or as good, is kept."""
    write(tmp_path, replace(SMALL, folded=1e-4, block=0.0))
    points = pd.read_parquet(tmp_path / "points.parquet")
    falling = points.assign(val_score=points.val_score.mask(points.epochs > 4, points.val_score - points.epochs / 40))
    falling.to_parquet(tmp_path / "points.parquet")
    cell, known = first(Bank.read(tmp_path))
    early, late = (replay(cell, replace(C, early=on, pruner=Never()), known, 0) for on in (True, False))
    assert early[0].rows < late[0].rows
    one = early[0].tried[0]
    assert early[1].end_rows[one] == 3 * 100 * 8
    assert early[1].end[one] == pytest.approx(cell.score[one, :, :, 2].mean(), abs=2e-3)


def test_a_race_runs_folds_that_the_search_did_not(written, tmp_path):
    bank, _ = written
    cell, known = first(bank)
    pruner = Batch((3,), (8.0,))
    always = replace(D, pruner=pruner, race=Rules(sure=2, settled=2, alike=2, hopeless=2), share=0.9)
    trace, _ = replay(cell, always, known, 0)
    assert trace.rows_race == trace.race_runs * 2400 > 0
    assert trace.race_runs == len(trace.complete) * 6  # every fold of the two other repeats, by each finalist
    poor, _ = replay(cell, replace(always, share=0.2), known, 0)
    assert 0 < poor.rows_race <= poor.rows / 4
    alone = replace(cell, end=np.where(np.arange(3)[:, None] == 0, cell.end, np.nan))
    assert replay(alone, always, known, 0)[0].race_runs == 0


def test_the_search_for_the_best_default_elsewhere_is_the_comparator(written):
    bank, _ = written
    table = evaluate(bank, [A], 2)
    assert (table.gain == 0).all()
    assert table.default.all()
    assert (by_cell(table, bank).error == 0).all()


@pytest.fixture(scope="module")
def evaluated(written):
    bank, _ = written
    return evaluate(bank, [B, D, Policy("all", "all", "advised", 99, Never(), choice="posterior")], 12)


def test_gains_are_those_of_the_truth(evaluated, written):
    bank, truth = written
    for row in evaluated.drop_duplicates(["policy", "cell", "winner"]).itertuples():
        task, size = row.cell.rsplit(" ", 1)
        config = bank.cell(task, int(size)).config
        true = truth[task, int(size), config[row.winner]] - truth[task, int(size), config[row.beside]]
        assert row.gain == pytest.approx(true, abs=5 * (2 * 0.003**2 + 2 * 0.002**2 / 9) ** 0.5)


def test_a_race_gains_and_spares(evaluated, written):
    bank, _ = written
    todays, proposed, all_trained = (
        summary(evaluated[evaluated.policy == name], bank) for name in (B.name, D.name, "all")
    )
    assert proposed["gain"].mean > 0
    assert proposed["spared"].mean > todays["spared"].mean > all_trained["spared"].mean == 0
    assert all_trained["lost"].mean == 0
    assert proposed["rows_race"].mean > todays["rows_race"].mean == 0
    interval = proposed["gain"]
    assert interval.low <= interval.mean <= interval.high


def test_stated_chances_hold_on_what_they_were_drawn_from(evaluated):
    told = evaluated[evaluated.policy == "all"].dropna(subset=["lead"])
    found = bars.calibration(told)
    assert found.slope.low < 1 < found.slope.high
    assert 0.4 < told.temperature.min() <= told.temperature.max() < 3


def test_the_best_of_a_cell_is_not_the_luckiest(tmp_path):
    """Chosen on one half and scored on the other: not above the truth, as the best of all scores is."""
    crossed, naive, true = [], [], []
    for seed in range(4):
        alike = {"method": 0.002, "everywhere": 0.002, "here": 0.002}
        truth = write(tmp_path, Recipe(4, draws=6, repeats=1, tested=0.02, epochs=(8, 24), seed=seed, **alike))
        for cell in Bank.read(tmp_path).cells.values():
            shift = cell.truth.mean() - np.mean([truth[cell.task, 100, config] for config in cell.config])
            crossed.append(best_of(cell) - shift)
            naive.append(cell.truth.max() - shift)
            true.append(max(truth[cell.task, 100, config] for config in cell.config))
    assert np.mean(naive) > np.mean(true) + 0.01
    assert np.mean(crossed) < np.mean(true) + 0.005


def cells_of(gains, error=0.003, groups=None):
    groups = groups or [f"group {i}" for i in range(len(gains))]
    return pd.DataFrame({"cell": groups, "group": groups, "gain": gains, "error": error})


def test_never_worse_counts_all_cells_together():
    equal = bars.never_worse(cells_of(np.random.default_rng(0).normal(0, 0.003, 24)), 0.0)
    assert equal.rejected == []
    assert equal.deficit.low < 0 < equal.deficit.high
    gains = np.full(24, 0.01)
    gains[3] = -0.03
    worse = bars.never_worse(cells_of(gains), 0.02)
    assert worse.rejected == ["group 3"]
    assert worse.deficit.high < 0
    assert worse.catastrophes == 0.02


def test_the_chance_on_a_new_group_knows_that_groups_vary():
    def chance(gains, **how):
        return bars.never_worse(cells_of(gains, **how), 0.0).new_task

    assert chance([0.02] * 8) < 0.001
    assert chance([0.05, -0.01] * 4) > 0.1
    assert chance([-0.02] * 8) > 0.999
    assert chance([0.011, 0.009] * 4, error=0.02) < chance([0.05, -0.03] * 4, error=0.02)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_temperature_makes_chances_hold(factor):
    generator, count = np.random.default_rng(2), 6000
    lead, noise = generator.normal(0, 2, count), 0.25
    seen = generator.normal(lead, factor) + generator.normal(0, noise**0.5, count)
    claims = pd.DataFrame({"cell": generator.integers(1000, size=count), "lead": lead, "deviation": 1.0, "seen": seen})
    claims = claims.assign(noise=noise, temperature=1.0, group=claims.cell % 7)
    found = bars.temperature(claims)
    assert found == pytest.approx(factor, rel=0.15)
    assert bars.calibration(claims.assign(temperature=found)).slope.mean == pytest.approx(1, abs=0.12)
    if factor == 1:
        stated, held, _ = np.transpose(bars.calibration(claims).bins)
        assert held == pytest.approx(stated, abs=0.09)
        assert bars.calibration(claims).sure.low > 0.8


def test_an_interval_draws_whole_groups():
    groups = np.repeat(["a", "b", "c", "d"], 100)
    apart = np.repeat([0.0, 1.0, 2.0, 3.0], 100) + np.random.default_rng(0).normal(0, 0.01, 400)
    found = bars.mean_over_groups(apart, groups)
    assert found.mean == pytest.approx(1.5, abs=0.01)
    assert found.high - found.low > 1.5
    assert np.isnan(bars.mean_over_groups(np.full(2, np.nan), np.array(["a", "b"])).mean)


def test_the_script_prints_a_line_for_each_policy(small, tmp_path):
    command = [sys.executable, BANK / "simulate.py", "--bank", small, "--seeds", "2", "--out", tmp_path]
    told = subprocess.run(
        [*command, "--only", A.name, D.name], capture_output=True, text=True, check=True, cwd=BANK.parents[1]
    )
    lines = told.stdout.splitlines()
    assert lines[0] == "3 cells of 3 groups, 2 replays of each policy on each"
    assert [line.split("|")[1].strip() for line in lines[4:]] == [A.name, D.name]
    assert len(pd.read_parquet(tmp_path / "replays.parquet")) == 3 * 2 * 2
