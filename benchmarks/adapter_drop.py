"""What a winner saves that drops the add-ons of its lowest layers, and what that costs in score (AdapterDrop).

For each task of the bank, method and split, the method's default is trained in folds and refitted. Then more and more
of the lowest layers lose their add-ons, without training again: the folds say how many may (one standard error), and
the refit is scored on the test rows for every number. Prints means over tasks and splits for each method: scores less
those with all add-ons, trained parameters, file, time of a row, the part of it that winners on the same base model have
in common, and what eight such winners take together, where that part runs once for all. Then the numbers that were
chosen.

    OMP_NUM_THREADS=1 python benchmarks/adapter_drop.py --folder DATA --out DIR      # DATA: see bank/README.md
    python benchmarks/adapter_drop.py --folder DATA --out DIR --tables               # what is there so far

It goes on where it was. `--quick` has few rows and one split, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tomllib
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from multitask import interval

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "bank"))

from drawing import drawn  # noqa: E402  # beside the bank's own scripts
from sources import TASKS, TEST_ROWS, Folders  # noqa: E402  # likewise

from autopeft.data.split import thin  # noqa: E402  # likewise
from autopeft.tasks.registry import find_task  # noqa: E402  # likewise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.execution.problem import Problem

QUICK_ROWS, TOGETHER = 60, 8


def problem_of(name: str, method: str, seed: int, arguments: argparse.Namespace) -> Problem:
    """The study of a task on rows that are drawn for the split."""
    from autopeft.execution.problem import Problem
    from autopeft.methods.registry import discover
    from autopeft.study.file import StudySpec

    task, rows = TASKS[name], QUICK_ROWS if arguments.quick else arguments.rows
    kind, folder = find_task(task.kind), (arguments.out / "rows").resolve()
    train, test = (folder / f"{name}.{seed}.{rows}.{part}.jsonl" for part in ("train", "test"))
    if not test.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        parts = drawn(task, Folders(arguments.folder))
        thin(parts[0], kind.strata(parts[0]), rows, seed).to_json(train, orient="records", lines=True)
        thin(parts[1], kind.strata(parts[1]), TEST_ROWS, 0).to_json(test, orient="records", lines=True)
    columns = json.loads(test.read_text(encoding="utf-8").partition("\n")[0])
    epochs = {"epochs": 1} if arguments.quick else {}
    content = {
        "name": name,
        "seed": seed,
        "output": str(arguments.out.resolve() / "studies" / f"{name}_{method}_{seed}"),
        "model": {"name_or_path": arguments.model, "max_length": arguments.max_length, "dtype": "float32"},
        "task": {"kind": task.kind, **task.options},
        "data": {"train": str(train), "test": str(test), **{column: column for column in columns}},
        "search": {"methods": [method], "portfolio": False, **epochs},
        "validation": {"metric": task.metric or None},
    }
    return Problem.from_spec(StudySpec.from_mapping(content), discover())


def measured(name: str, method: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The chosen number, and for each number the scores and the cost."""
    from autopeft.search import layer_drop
    from autopeft.search.fold_models import kept_folds
    from autopeft.search.layer_cost import cost_of
    from autopeft.search.refit import refit
    from autopeft.search.scored import scored_here
    from autopeft.search.without_layers import without_layers

    kept = arguments.out / f"{name}_{method}_{seed}.json"
    if kept.is_file() or arguments.tables:
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        return found
    problem = problem_of(name, method, seed, arguments)
    candidate = problem.space[method].default()
    counts = range(len(problem.base.spec.layers))
    checkpoint = kept_folds(problem, candidate)
    scores = layer_drop.fold_scores(problem, candidate, checkpoint, counts)
    checkpoint.remove()
    model, lines = refit(problem, candidate), []
    for count in counts:
        lower = without_layers(problem.base, candidate, model, count)
        cost = cost_of(problem, candidate, lower, count)
        test = scored_here(problem, lower).score
        lines.append({"folds": fmean(scores[count] or [math.nan]), "test": test, **cost._asdict()})
    found = {"chosen": layer_drop.chosen(scores), "metric": problem.metric, "counts": lines}
    kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def told(found: Mapping[tuple[str, str, int], Mapping[str, Any]], method: str) -> str:
    """The tables of a method, in Markdown."""
    own = {key: one for key, one in found.items() if key[1] == method and one}
    if not own:
        return f"There is nothing yet on {method}."
    lines = [
        f"**{method}**, means over {len(own)} studies",
        "",
        "| layers without | folds | test | trained parameters | file | ms a row | of these shared | "
        f"ms for {TOGETHER} tasks |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for count in range(min(len(one["counts"]) for one in own.values())):
        here = [(one["counts"][count], one["counts"][0]) for one in own.values()]
        folds, test = (interval([new[key] - old[key] for new, old in here]) for key in ("folds", "test"))
        costs = [fmean(new[key] for new, _ in here) for key in ("params", "saved", "seconds", "below")]
        params, size, whole, below = costs
        together = below + TOGETHER * (whole - below)
        times = " | ".join(f"{seconds * 1e3:.3g}" for seconds in (whole, below, together))
        lines.append(f"| {count} | {folds} | {test} | {params:,.0f} | {size / 1024:,.0f} KiB | {times} |")
    lines += ["", "| task | split | metric | chosen | test, all add-ons | test, chosen |", "|---|---|---|---|---|---|"]
    for (name, _, seed), one in own.items():
        tests = (one["counts"][count]["test"] for count in (0, one["chosen"]))
        cells = " | ".join(f"{test:.4f}" for test in tests)
        lines.append(f"| {name} | {seed} | {one['metric']} | {one['chosen']} | {cells} |")
    gaps = [one["counts"][one["chosen"]]["test"] - one["counts"][0]["test"] for one in own.values()]
    return "\n".join([*lines, "", f"Test score of what was chosen, less that with all add-ons: {interval(gaps)}."])


def main() -> None:
    """Command line."""
    model = tomllib.loads((ROOT / "studies" / "quickstart.toml").read_text(encoding="utf-8"))["model"]["name_or_path"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, action="append", required=True, help="with the rows; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="where rows and scores are kept")
    parser.add_argument("--model", default=model)
    parser.add_argument("--tasks", nargs="+", default=["snips", "banking_20", "emotions"], choices=[*TASKS])
    parser.add_argument("--methods", nargs="+", default=["adapter", "lora"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", type=int, default=150, help="training rows of each task")
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.tasks = arguments.seeds[:1], arguments.tasks[:1]
    arguments.out.mkdir(parents=True, exist_ok=True)
    keys = product(arguments.tasks, arguments.methods, arguments.seeds)
    found = {key: measured(*key, arguments) for key in keys}
    print("\n\n".join(told(found, method) for method in arguments.methods))


if __name__ == "__main__":
    main()
