"""Which policy: replay thousands of studies on the bank, every constant taken from the groups left.

A study is replayed on one cell, a task at a size. What it may know beforehand (the best default elsewhere, lengths, the
portfolio, priors, variances) comes from cells of other groups. Gains are in points of the metric on test rows over the
best single fixed default, regret is to the best of the cell, cross-fitted: chosen on one half of the test rows, scored
on the other.

    python benchmarks/bank/simulate.py --bank DATA --seeds 200 [--only "D proposed"] [--out DIR]
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from bars import (
    ALIKE,
    CATASTROPHE,
    POINT,
    Calibration,
    Interval,
    NeverWorse,
    calibration,
    mean_over_groups,
    never_worse,
    temperature,
)
from cells import Bank, Cell
from constants import fit
from policies import POLICIES, Policy
from replay import Trace, comparator_of, replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trials import Search


def evaluate(bank: Bank, policies: Sequence[Policy], seeds: int) -> pd.DataFrame:
    """A row for each policy, cell and seed; everything beforehand comes from the other groups.

    The temperature of stated chances comes from the replays on the other groups. Those had their own constants from
    groups that include this one: the one figure in which a left-out group leaves a trace.
    """
    rows = []
    for cell in bank.cells.values():
        constants = fit(bank.without(cell.group), cell.size, cell.kind)
        beside = comparator_of(cell, constants, ~np.isnan(cell.end).all(axis=(1, 2)))
        for policy in policies:
            for seed in range(seeds):
                trace, search = replay(cell, policy, constants, seed)
                rows.append({"policy": policy.name, **row_of(cell, beside, trace, search, policy, seed)})
    return with_temperature(pd.DataFrame(rows))


def with_temperature(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the temperature of each policy's chances on each group, from the other groups."""
    found = pd.Series(1.0, index=table.index)
    for (_, group), some in table.groupby(["policy", "group"]):
        others = table[(table.policy == some.policy.iloc[0]) & (table.group != group)]
        found[some.index] = temperature(others.dropna(subset=["lead"]))
    return table.assign(temperature=found)


def row_of(cell: Cell, beside: int, trace: Trace, search: Search, policy: Policy, seed: int) -> dict[str, object]:
    """What became of one replay."""
    test, rival, refitted = search.test.mean(axis=1), trace.rival, cell.refit.mean(axis=1)
    gain = test[trace.winner] - cell.truth[beside]
    if policy.form == "refit" and not np.isnan(alike := refitted[trace.winner] - refitted[beside]):
        gain = alike
    return {
        "group": cell.group,
        "cell": cell.name,
        "seed": seed,
        "winner": trace.winner,
        "default": bool(cell.default[trace.winner]),
        "beside": beside,
        "gain": gain,
        "gain_at_once": gain + luck(cell, trace.winner, seed) - luck(cell, beside, seed + 1),
        "regret": best_of(cell) - test[trace.winner],
        "tried": len(trace.tried),
        "rows": trace.rows,
        "rows_race": trace.rows_race,
        "spared": 1 - trace.rows / trace.rows_full,
        "lost": trace.lost > ALIKE,
        "race_runs": trace.race_runs,
        "chance": trace.verdict.chance,
        "lead": trace.verdict.lead if not cell.default[trace.winner] else math.nan,  # of a default nothing is claimed
        "deviation": trace.verdict.deviation,
        "seen": math.nan if rival is None else cell.truth[trace.winner] - cell.truth[rival],
        "noise": 2 * cell.test_noise,
        "overtuned": overtuned(trace, test),
    }


def best_of(cell: Cell) -> float:
    """The score of the best candidate: the best on one half scored on the other, and the reverse."""
    a, b = cell.halves.T
    return float((b[np.nanargmax(a)] + a[np.nanargmax(b)]) / 2)


def luck(cell: Cell, candidate: int, seed: int) -> float:
    """How far one model of a candidate, drawn from those that were trained, is above their mean."""
    models = cell.test[candidate].mean(axis=-1).ravel()
    return float(np.random.default_rng(seed).choice(models[~np.isnan(models)]) - cell.truth[candidate])


def overtuned(trace: Trace, test: np.ndarray) -> float:
    """How far the last incumbent is below the best one before it, on test rows."""
    scores = [test[candidate] for _, candidate in trace.path]
    return float(max(scores) - scores[-1]) if scores else math.nan


def by_cell(table: pd.DataFrame, bank: Bank) -> pd.DataFrame:
    """A row for each cell of one policy's replays: means, and the standard error of the gain.

    Replays share the recorded models and test rows, so that error is theirs, however many replays there are: with
    shares w of the winners, test noise · Σ (w, less 1 for the comparator)².
    """
    found = table.groupby(["cell", "group"], as_index=False)[
        ["gain", "regret", "rows", "rows_race", "spared", "lost", "race_runs", "overtuned"]
    ].mean()
    noise = {cell.name: cell.test_noise for cell in bank.cells.values()}
    errors = []
    for name in found.cell:
        some = table[table.cell == name]
        shares = np.bincount(some.winner).astype(float) / len(some)
        shares = np.pad(shares, (0, max(0, int(some.beside.iloc[0]) + 1 - len(shares))))
        shares[int(some.beside.iloc[0])] -= 1
        errors.append(math.sqrt(noise[name] * float(shares @ shares)))
    return found.assign(error=errors)


def summary(table: pd.DataFrame, bank: Bank) -> dict[str, object]:
    """The figures of one policy's replays.

    Of what a perfect choice would gain over the best fixed default, `missed` is the share that the policy does not;
    NaN where that is next to nothing.
    """
    cells = by_cell(table, bank)
    groups = cells.group.to_numpy()
    claims = table.dropna(subset=["lead", "seen"])

    def mean(name: str) -> Interval:
        return mean_over_groups(cells[name].to_numpy(float), groups)

    found: dict[str, object] = {name: mean(name) for name in ("gain", "regret", "rows", "rows_race", "spared", "lost")}
    never: NeverWorse = never_worse(cells, float((table.gain_at_once < -CATASTROPHE).mean()))
    told: Calibration | None = calibration(claims) if len(claims) else None
    there_is = mean("regret").mean + mean("gain").mean
    found["missed"] = mean("regret").mean / there_is if there_is > ALIKE else math.nan
    return {**found, "never worse": never, "calibration": told, "overtuned": float(cells.overtuned.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, required=True, help="the folder of the four tables")
    parser.add_argument("--seeds", type=int, default=200, help="replays of each policy on each cell")
    parser.add_argument("--only", nargs="+", metavar="POLICY", help="by name")
    parser.add_argument("--schedule", help="whose runs are replayed; those with the most runs, unless told")
    parser.add_argument("--out", type=Path, help="where to write replays.parquet")
    arguments = parser.parse_args()
    known = [policy.name for policy in POLICIES]
    if unknown := [name for name in arguments.only or () if name not in known]:
        parser.error(f"--only must name policies ({', '.join(known)}), but has {', '.join(unknown)}.")
    bank = Bank.read(arguments.bank, schedule=arguments.schedule)
    policies = [policy for policy in POLICIES if not arguments.only or policy.name in arguments.only]
    table = evaluate(bank, policies, arguments.seeds)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        table.to_parquet(arguments.out / "replays.parquet")
    print(f"{len(bank.cells)} cells of {len(bank.groups)} groups, {arguments.seeds} replays of each policy on each\n")
    print(*shown(table, bank, [policy.name for policy in policies]), sep="\n")


def shown(table: pd.DataFrame, bank: Bank, names: Sequence[str]) -> list[str]:
    """A table of the policies, a line each."""
    lines = [
        "| policy | gain, points | regret, points | missed | rows (race) | spared | best lost | cells worse "
        "| new task worse | 5 points worse | slope | of ≥ 80% held |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in names:
        found = summary(table[table.policy == name], bank)
        never, told = found["never worse"], found["calibration"]
        slope, sure = (f"{told.slope:.2f}", share(told.sure.mean)) if told else ("–", "–")
        lines.append(
            f"| {name} | {in_points(found['gain'])} | {in_points(found['regret'])} | {share(found['missed'])} "
            f"| {found['rows'].mean:,.0f} ({found['rows_race'].mean:,.0f}) | {found['spared'].mean:.0%} "
            f"| {found['lost'].mean:.1%} | {len(never.rejected)} | {share(never.new_task)} | {never.catastrophes:.1%} "
            f"| {slope} | {sure} |"
        )
    return lines


def share(value: float) -> str:
    """In percent."""
    return "–" if math.isnan(value) else f"{value:.0%}"


def in_points(interval: Interval) -> str:
    low, high = interval.low / POINT, interval.high / POINT
    return f"{replace(interval, mean=interval.mean / POINT, low=low, high=high):+.2f}"


if __name__ == "__main__":
    main()
