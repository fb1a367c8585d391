"""How much pruning can spare, and how often it loses the best trial: one curve for each kind of pruner.

Each study tries what the bank has of a task, in the order and at the lengths that searches use, with two protected
defaults. "Best lost" means that the best trial by the folds' scores was pruned, and that the best one that was left is
more than 0.5 points worse. Rows spared are of those that all tried candidates would train on to their ends.

    python benchmarks/bank/pruning.py --bank benchmarks/bank/data --seeds 100 [--least 12] [--plot docs/pruning.png]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from bars import POINT
from cells import Bank
from policies import Batch, D, Halving, Never, Policy
from simulate import evaluate, summary

FIRST = (1.0, 2.0, 4.0, 8.0, 12.0)
"""Epochs to the first rung, of 24."""

KEPT = {
    "a half, a third, a fifth": (8, 5, 3),
    "a third, a fifth": (5, 3),
    "a half": (8,),
    "a quarter": (4,),
}
"""How many of 16 go on after each rung."""


def policies() -> list[tuple[str, float, Policy]]:
    """Kinds of pruners, each with its setting and the policy."""
    found = [("never", 0.0, replace(D, name="never", pruner=Never()))]
    for first in FIRST:
        pruner = Halving(two=True, first=first)
        found.append(("one after the other", first, replace(D, name=f"halving from epoch {first:g}", pruner=pruner)))
    for told, keep in KEPT.items():
        for first in FIRST[1:]:
            rungs = tuple(first * 2**n for n in range(len(keep)) if first * 2**n < 24)
            policy = replace(D, name=f"batch: {told}, from epoch {first:g}", pruner=Batch(keep, rungs))
            found.append((f"together: {told}", first, policy))
    return found


def table_of(bank: Bank, seeds: int) -> pd.DataFrame:
    """A row for each pruner."""
    wanted = policies()
    replays = evaluate(bank, [policy for *_, policy in wanted], seeds)
    rows = []
    for kind, first, policy in wanted:
        found = summary(replays[replays.policy == policy.name], bank)
        lost, gain = found["lost"], found["gain"]
        rows.append(
            {
                "pruner": kind,
                "first rung": first,
                "spared": found["spared"].mean,
                "best lost": lost.mean,
                "low": lost.low,
                "high": lost.high,
                "gain": gain.mean / POINT,
                "gain low": gain.low / POINT,
                "gain high": gain.high / POINT,
            }
        )
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame, path: Path) -> None:
    """Rows spared against the share of best trials lost, a line for each kind."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for kind, some in table.groupby("pruner", sort=False):
        line = axes.plot(100 * some.spared, 100 * some["best lost"], marker="o", label=kind)[0]
        for _, row in some.iterrows():
            if row["first rung"]:
                place = 100 * row.spared, 100 * row["best lost"]
                axes.annotate(f"{row['first rung']:g}", place, xytext=(4, 4), textcoords="offset points",
                              fontsize=7, color=line.get_color())  # fmt: skip
    axes.axhline(5, color="grey", linewidth=0.8, linestyle="--")
    axes.axvline(70, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="rows spared, %", ylabel="best trial lost, %", xlim=(0, 100), ylim=(0, 100))
    axes.set_title("What pruning spares and loses; numbers are epochs to the first rung, of 24", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=Path, required=True, help="the folder of the four tables")
    parser.add_argument("--seeds", type=int, default=100, help="replays of each pruner on each cell")
    parser.add_argument("--least", type=int, default=12, help="configurations that a cell must have")
    parser.add_argument("--plot", type=Path, help="where to draw the curves")
    arguments = parser.parse_args()
    bank = Bank.read(arguments.bank)
    bank = Bank({key: cell for key, cell in bank.cells.items() if len(cell.places) >= arguments.least})
    if len(bank.groups) < 2:
        parser.error(f"--least must leave two groups of tasks, but {arguments.least} leaves {len(bank.groups)}.")
    print(f"{len(bank.cells)} cells of {len(bank.groups)} groups, {arguments.seeds} replays of each pruner on each\n")
    table = table_of(bank, arguments.seeds)
    print(table.round(3).to_string(index=False))
    if arguments.plot:
        plot(table, arguments.plot)


if __name__ == "__main__":
    main()
