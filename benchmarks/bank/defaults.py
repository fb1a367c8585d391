"""Which method's untuned default is best, over the tasks of the bank.

For each size and length a table: the mean of each default's test scores, in points below the best default of each
task, with the standard error over groups of tasks; how often it is the best, and within a point of it; the worst it
ever does. Tasks that do not have every default are left out, so that all stand beside the same.

    python benchmarks/bank/defaults.py BANK [--methods lora,adapter,prefix_tuning]
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from cells import Bank, Cell

POINT = 100


def scores_of(cell: Cell, epochs: float) -> dict[str, float]:
    """Points of each method's default at that length, on test rows; one that was refused has the majority's."""
    there = np.flatnonzero(cell.default & (cell.length == epochs))
    return {str(cell.method[place]): POINT * float(cell.truth[place]) for place in there}


def table(cells: list[Cell], epochs: float, wanted: set[str]) -> pd.DataFrame:
    """A row for each default, the best first; empty where no task has all of them."""
    found = {cell.name: scores_of(cell, epochs) for cell in cells}
    groups = {cell.name: cell.group for cell in cells}
    methods = wanted or {name for scores in found.values() for name in scores}
    whole = {name: scores for name, scores in found.items() if methods <= scores.keys()}
    rows = []
    for method in sorted(methods) if whole else ():
        below: dict[str, list[float]] = defaultdict(list)
        for name, scores in whole.items():
            below[groups[name]].append(scores[method] - max(scores[other] for other in methods))
        gaps = np.array([np.mean(own) for own in below.values()])
        every = np.array([gap for own in below.values() for gap in own])
        error = float(np.std(gaps, ddof=1)) / math.sqrt(len(gaps)) if len(gaps) > 1 else math.nan
        rows.append(
            {
                "method": method,
                "below the best": float(gaps.mean()),
                "error": error,
                "best": int((every == 0).sum()),
                "within a point": int((every >= -1).sum()),
                "worst": float(every.min()),
                "tasks": len(every),
                "groups": len(gaps),
            }
        )
    return pd.DataFrame(rows).sort_values("below the best", ascending=False) if rows else pd.DataFrame()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path)
    parser.add_argument("--methods", type=lambda given: set(given.split(",")), default=set(), help="keeps to these")
    arguments = parser.parse_args()
    cells = [*Bank.read(arguments.bank).cells.values()]
    known = {str(method) for cell in cells for method in cell.method[cell.default]}
    if unknown := arguments.methods - known:
        parser.error(
            f"--methods must name defaults of the bank ({', '.join(sorted(known))}), but has "
            f"{', '.join(sorted(unknown))}."
        )
    for size in sorted({cell.size for cell in cells}):
        own = [cell for cell in cells if cell.size == size]
        for epochs in sorted({float(length) for cell in own for length in cell.length[cell.default]}):
            found = table(own, epochs, arguments.methods)
            if len(found) < 2:
                continue
            tasks, groups = found.tasks.iloc[0], found.groups.iloc[0]
            print(f"\n{size} rows per fold, {epochs:g} epochs, {tasks} tasks of {groups} groups\n")
            print("| default | points below the best | best | within a point | worst |\n|---|---:|---:|---:|---:|")
            for row in found.to_dict("records"):
                error = "" if math.isnan(row["error"]) else f" ± {row['error']:.1f}"
                print(
                    f"| {row['method']} | {row['below the best']:+.1f}{error} | {row['best']} | "
                    f"{row['within a point']} | {row['worst']:+.1f} |"
                )


if __name__ == "__main__":
    main()
