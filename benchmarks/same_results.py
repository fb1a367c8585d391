"""Whether two runs of a study, such as before and after a change of the code, gave the same: digit for digit.

Compared are every trial's params, state, fold scores and curve, the scores on the held-out rows, and what was answered
to each of them. Times are not. Exit code 1 where anything differs.

    python benchmarks/same_results.py BEFORE AFTER      # two output folders
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

TIMED = {"seconds", "measured_memory", "unseen_memory", "machine"}
"""Of a trial's record, what a machine decides."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    one, other = (json.loads((folder / "result.json").read_text()) for folder in (arguments.before, arguments.after))
    differences = []
    for first, second in zip(one["records"], other["records"], strict=False):
        differences += [
            f"trial {first['number']}, {name}: {first[name]} → {second.get(name)}"
            for name in first.keys() - TIMED
            if first[name] != second.get(name)
        ]
    if len(one["records"]) != len(other["records"]):
        differences.append(f"{len(one['records'])} trials → {len(other['records'])}")
    for name in ("winner", "baseline", "defaults"):
        if one["test"][name] != other["test"][name]:
            differences.append(f"held out, {name}: {one['test'][name]} → {other['test'][name]}")
    cells, answers = 0, [read(folder / "test_predictions.csv") for folder in (arguments.before, arguments.after)]
    for column, made in answers[0].items():
        cells += len(made)
        wrong = sum(a != b for a, b in zip(made, answers[1].get(column, []), strict=False))
        if wrong or len(made) != len(answers[1].get(column, [])):
            differences.append(f"answers, {column}: {wrong} differ")
    print(f"{len(one['records'])} trials and {cells} answers compared: {len(differences)} differences")
    print("\n".join(differences))
    sys.exit(bool(differences))


def read(path: Path) -> dict[str, list[str]]:
    """The columns of a file of answers."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


if __name__ == "__main__":
    main()
