"""How widely recorded scores scatter: what a race takes for usual before it has run (`autopeft.search.standing`).

    python benchmarks/bank/variances.py benchmarks/bank/data

In points. "folds" is the deviation of a candidate's score on a fold, beyond what candidate and fold explain; "usual" is
what `standing.FOLDS` makes of the rows that a fold validates. "between" is the deviation of candidates' true scores
around what is known of their method, from all groups but one.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd
from bars import POINT
from cells import Bank, Cell
from constants import fit
from effects import residual_squares

from autopeft.search.standing import BETWEEN, usual


def of_folds(cell: Cell) -> tuple[float, int]:
    """The variance of folds in a cell, and its degrees of freedom."""
    squares, degrees = residual_squares(cell.end.reshape(len(cell.end), -1))
    return squares / max(degrees, 1), degrees


def folds_table(bank: Bank) -> pd.DataFrame:
    """A row for each cell."""
    found = []
    for cell in bank.cells.values():
        variance, degrees = of_folds(cell)
        validated = round(cell.size / (cell.end.shape[2] - 1))
        found.append(
            {
                "cell": cell.name,
                "rows validated": validated,
                "candidates": len(cell.end),
                "folds": math.sqrt(variance) / POINT,
                "usual": math.sqrt(usual(validated).folds) / POINT,
                "degrees": degrees,
            }
        )
    return pd.DataFrame(found)


def between(bank: Bank) -> pd.Series:
    """For each group the deviation that the others tell, at the size most cells have."""
    sizes = [cell.size for cell in bank.cells.values()]
    size = max(sorted(set(sizes)), key=sizes.count)
    found = {}
    for group in bank.groups:
        (kind, *_) = (cell.kind for cell in bank.cells.values() if cell.group == group)
        found[group] = math.sqrt(fit(bank.without(group), size, kind).between_known) / POINT
    return pd.Series(found, name="between")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path, help="the folder of the four tables")
    bank = Bank.read(parser.parse_args().bank)
    table, apart = folds_table(bank), between(bank)
    print(table.round(1).to_string(index=False))
    ratio = table.folds / table.usual
    print(f"folds / usual: {ratio.min():.2f} to {ratio.max():.2f}, {ratio.median():.2f} in the median")
    print(f"\n{apart.round(1).to_string()}\nmedian {apart.median():.1f}, usual {math.sqrt(BETWEEN) / POINT:.1f}")


if __name__ == "__main__":
    main()
