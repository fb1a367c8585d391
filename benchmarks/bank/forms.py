"""Which form of a winner is best: one model of all rows, or the folds' models together.

    python benchmarks/bank/forms.py benchmarks/bank/data

In points on test rows, means over tasks with the standard error over groups: what a refit on all rows scores above one
fold's model, and what the mean answer of the folds' models does. A refit has as many epochs as the folds. "worst" is
the task where the folds together are furthest below the refit. Only configurations with both forms count.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from bars import POINT
from cells import Bank

from autopeft.search.portfolio import by_group

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cells import Cell


def table(cells: Iterable[Cell]) -> pd.DataFrame:
    """A row for each cell and configuration of which both forms were recorded."""
    return pd.DataFrame(
        [
            {
                "size": cell.size,
                "cell": cell.name,
                "group": cell.group,
                "method": cell.method[place],
                "refit": (cell.refit[place].mean() - cell.truth[place]) / POINT,
                "together": (cell.ensemble[place].mean() - cell.truth[place]) / POINT,
            }
            for cell in cells
            for place in np.flatnonzero(~np.isnan(cell.refit + cell.ensemble).any(axis=1))
        ]
    )


def shown(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each size and method, and one for all methods of a size."""
    rows = []
    for size, of_size in found.groupby("size"):
        for method, some in [*of_size.groupby("method"), ("all", of_size)]:
            cells = some.assign(apart=some.together - some.refit).groupby(["cell", "group"], as_index=False)[
                ["refit", "together", "apart"]
            ].mean()  # fmt: skip
            row = {"rows": size, "method": method, "tasks": len(cells), "worst": cells.apart.min()}
            for name in ("refit", "together", "apart"):
                mean, error = by_group(cells[name].to_numpy(), np.ones(len(cells)), [*cells.group])
                row[name] = f"{mean:+.1f} ± {error:.1f}"
            rows.append(row)
    return pd.DataFrame(rows).rename(columns={"apart": "together - refit"})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bank", type=Path, help="the folder of the four tables")
    found = table(Bank.read(parser.parse_args().bank).cells.values())
    if found.empty:
        raise SystemExit("The bank has no configuration with a refit and its folds together; record stages 5 and 7.")
    print(shown(found).round(1).to_string(index=False))


if __name__ == "__main__":
    main()
