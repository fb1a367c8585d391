"""Put the parts of a bank together: `tasks`, `runs` and `points` as one file each, and the answers by task and size.

    python benchmarks/bank/merge.py DIR

What is in the files already stays; runs of new parts come behind it. The runs and points of a task in one size are a
row group, which is what is read together. DIR/predictions holds, for each task and size, `runs`, `test` and `truths`,
and for the runs whose folds validate rows `cells` and `out_of_fold`. It is not committed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from recorder import ANSWERS, POINTS_PART, RUNS_PART, TASK_PART, TRUTHS
from schema import POINTS, RUNS, TASKS, read, write

from autopeft.common.files import whole

if TYPE_CHECKING:
    from collections.abc import Iterable


def merge(out: Path) -> tuple[int, int]:
    """Write the files; how many runs and points there are."""
    parts = out / "parts"
    runs = together(read(out / "runs.parquet", RUNS), parts.glob(f"*{RUNS_PART}"), RUNS)
    points = together(read(out / "points.parquet", POINTS), parts.glob(f"*{POINTS_PART}"), POINTS)
    points = points.filter(pc.is_in(points["run"], runs["run"]))  # of a part without runs, its recorder is at work
    tasks = together(TASKS.empty_table(), parts.glob(f"*{TASK_PART}"), TASKS, "task")
    old = read(out / "tasks.parquet", TASKS)
    kept = pc.invert(pc.is_in(old["task"].cast(pa.string()), tasks["task"].cast(pa.string())))
    write(pa.concat_tables([old.filter(kept), tasks]).unify_dictionaries(), out / "tasks.parquet")
    write(runs, out / "runs.parquet", list(by_cell(runs)))
    write(points, out / "points.parquet", list(by_cell(points)))
    answers(parts, out / "predictions")
    return len(runs), len(points)


def together(known: pa.Table, parts: Iterable[Path], schema: pa.Schema, key: str = "run") -> pa.Table:
    """What is known, and what new parts add to it; of each key the rows of the part that came first."""
    found, names = [known], {*known[key].to_pylist()}
    for path in sorted(parts):
        part = read(path, schema)
        own = {*part[key].to_pylist()}
        if not own & names:
            found.append(part)
            names |= own
    whole_table = pa.concat_tables(found).unify_dictionaries()
    return whole_table.combine_chunks()


def by_cell(table: pa.Table) -> Iterable[pa.Table]:
    """A table for each task and size, in the order in which their first rows come."""
    cells = [".".join(run.split(".")[:2]) for run in table["run"].to_pylist()]
    for cell in dict.fromkeys(cells):
        yield table.filter(pa.array([own == cell for own in cells]))


def answers(parts: Path, out: Path) -> None:
    """Write `TASK.SIZE.npz` of all answers that there are."""
    out.mkdir(exist_ok=True)
    for truths in sorted(parts.glob(f"*{TRUTHS}")):
        cell = truths.name.removesuffix(TRUTHS)
        found: dict[str, list[np.ndarray]] = {"test": [], "out_of_fold": []}
        runs, cells = [], []
        for path in sorted(parts.glob(f"{cell}.*{ANSWERS}")):
            name = path.name.removesuffix(ANSWERS)
            with np.load(path) as kept:
                found["test"] += [*kept["test"]]
                folded = "out_of_fold" in kept
                runs += [f"{name}.{fold}" for fold in (range(len(kept["test"])) if folded else (-1,))]
                if folded:
                    found["out_of_fold"].append(kept["out_of_fold"])
                    cells.append(name)
        with np.load(truths) as true, whole(out / f"{cell}.npz") as draft, draft.open("wb") as file:
            stacks = {name: np.stack(arrays) for name, arrays in found.items() if arrays}
            true_of = {f"truths_{part}": true[part] for part in ("train", "test")}
            np.savez_compressed(file, runs=np.array(runs), cells=np.array(cells), **stacks, **true_of)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bank", type=Path)
    arguments = parser.parse_args()
    print("{} runs, {} points".format(*merge(arguments.bank)))


if __name__ == "__main__":
    main()
