"""How the score depends on length and learning rate together, over the tasks of the bank.

`methods/length.py` rests on it.

For each method and size a table: lengths down, shares of the method's default rate across, and in each place by how
many points the mean test score over the folds is above that of the default rate at the shortest length. Means are over
groups of tasks, each of which counts once, with their standard error.

    python benchmarks/bank/lengths.py BANK
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from cells import Bank, Cell

from autopeft.methods import length
from autopeft.methods.registry import discover

Gains = dict[str, dict[tuple[float, float], list[float]]]
"""By group of tasks, and by length and share of the default rate: points of the score above the reference."""


def gains(cells: list[Cell], method: str, rate: float) -> Gains:
    """Of one method at one size, from cells that have its default at the shortest length."""
    found: Gains = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        known = {}
        for place in np.flatnonzero((cell.method == method) & np.isin(cell.origin, ("default", "added"))):
            known[float(cell.length[place]), round(float(cell.lr[place]) / rate, 2)] = 100 * float(
                np.nanmean(cell.test[place])
            )
        reference = known.get((min((epochs for epochs, _ in known), default=0.0), 1.0))
        if reference is not None:
            for key, score in known.items():
                found[cell.group][key].append(score - reference)
    return found


def table(found: Gains) -> tuple[list[str], dict[tuple[float, float], float]]:
    """Lines of a table, and the means."""
    keys = sorted({key for own in found.values() for key in own})
    lengths, shares = sorted({key[0] for key in keys}), sorted({key[1] for key in keys}, reverse=True)
    means: dict[tuple[float, float], float] = {}
    lines = [
        "| epochs | " + " | ".join(f"rate x {share:g}" for share in shares) + " |",
        "|---:" * (len(shares) + 1) + "|",
    ]
    for epochs in lengths:
        told = []
        for share in shares:
            groups = [float(np.mean(own[epochs, share])) for own in found.values() if (epochs, share) in own]
            if not groups:
                told.append("–")
                continue
            means[epochs, share] = mean = float(np.mean(groups))
            error = f" ± {np.std(groups, ddof=1) / math.sqrt(len(groups)):.1f}" if len(groups) > 1 else ""
            told.append(f"{mean:+.1f}{error} ({len(groups)})")
        lines.append(f"| {epochs:g} | " + " | ".join(told) + " |")
    return lines, means


def power(found: Gains) -> float | None:
    """The p of rate ∝ steps^-p: the best rate of each length is the top of a parabola through the three shares.

    A top that lies outside the shares counts as the outermost. None where lengths have fewer than three shares.
    """
    _, means = table(found)
    tops = []
    for epochs in sorted({key[0] for key in means}):
        own = sorted((math.log(share), mean) for (at, share), mean in means.items() if at == epochs)
        if len(own) < 3:
            continue
        x, y = map(np.array, zip(*own, strict=True))
        curve, slope, _ = np.polyfit(x, y, 2)
        top = -slope / (2 * curve) if curve < 0 else x[y.argmax()]
        tops.append((math.log(epochs), float(np.clip(top, x.min(), x.max()))))
    if len(tops) < 2:
        return None
    at, best = map(np.array, zip(*tops, strict=True))
    return -float(np.polyfit(at, best, 1)[0])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path)
    arguments = parser.parse_args()
    bank, methods = Bank.read(arguments.bank), discover().methods
    for size in sorted({cell.size for cell in bank.cells.values()}):
        cells = [cell for cell in bank.cells.values() if cell.size == size]
        for name in sorted({str(method) for cell in cells for method in cell.method}):
            rate = float(methods[name].training_space()["learning_rate"].default)
            found = gains(cells, name, rate)
            if not found:
                continue
            usual = length.epochs_for(size).default
            share = length.scaled_rate(1, usual, size)
            print(f"\n{name}, {size} rows per fold (default: {usual} epochs, rate x {share:.2g})\n")
            print("\n".join(table(found)[0]))
            if (fitted := power(found)) is not None:
                print(f"\nThe best rate falls with the steps to the power of {fitted:.2f}.")


if __name__ == "__main__":
    main()
