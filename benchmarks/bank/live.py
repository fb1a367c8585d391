"""Whole studies on the bank's tasks: what each winner scores on the test rows, beside every untuned default.

A study of the package as it is, ten methods or those that `--methods` names, on the rows that the bank has of a task;
once for each seed. Nothing is tuned on the test rows. What ran is kept in OUT, so the script goes on where it was.

    python benchmarks/bank/live.py --folder DATA --out OUT --only tweets,snips --seeds 0 1
    python benchmarks/bank/live.py --out OUT --show --bank benchmarks/bank/data      # the table of what ran so far

With a bank the table has what replays of the same task gain, one model for one model, and how many studies are inside
95% of that. Full fine-tuning and the head alone are left out; `studies/quickstart.toml` has them.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from agreement import FIXED, agreement
from bars import POINT, mean_over_groups
from cells import Bank
from drawing import content, prepared
from policies import SHIPPED
from recorder import ROOT
from rich.console import Console
from simulate import evaluate
from sources import SIZES, TASKS, Folders

from autopeft.methods.registry import discover
from autopeft.reporting import gather
from autopeft.reporting.progress import make_progress
from autopeft.search.run import run
from autopeft.study.archive import open_archive
from autopeft.study.file import StudySpec

if TYPE_CHECKING:
    from collections.abc import Sequence

SEEDS = 200
"""Replays of each task."""


def studied(name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a study, or go on with it; what became of it."""
    task = TASKS[name]
    files = prepared(task, arguments.size, Folders(arguments.folder), arguments.out / "rows")
    output = arguments.out / f"{name}.{arguments.size}.{seed}"
    said = content(task, files, arguments.model, arguments.precision, seed, output)
    said |= {
        "name": f"{name}-{seed}",
        "output": str(output),
        "search": {"trials": arguments.trials, "references": False},
    }
    if arguments.methods:
        said["search"]["methods"] = arguments.methods
    began = time.monotonic()
    result = run(StudySpec.from_mapping(said), discover(), make_progress(Console(stderr=True)))
    report = gather(output)
    apart = {one.other: asdict(one.difference) for one in report.test.comparisons} if report.test else {}
    return {
        "task": name,
        "group": task.group,
        "size": arguments.size,
        "seed": seed,
        "metric": result.metric,
        "winner": result.best.method,
        "default": result.best.number in report.defaults,
        "test": asdict(result.test),
        "differences": apart,
        "chance": result.chance,
        "agreement": agreement(open_archive(output), SIZES[arguments.size]),
        "states": [record.state for record in result.records],
        "minutes": (time.monotonic() - began) / 60,
    }


def rows_of(kept: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A row a study, in points."""
    rows = []
    for one in kept:
        test, defaults = one["test"], {name: s for name, s in one["test"]["defaults"].items() if s is not None}
        best = max(defaults, key=defaults.__getitem__)
        rows.append(
            {
                "task": one["task"],
                "group": one["group"],
                "seed": one["seed"],
                "winner": one["winner"] + " (default)" * one["default"],
                "score": test["winner"] / POINT,
                FIXED: defaults.get(FIXED, float("nan")) / POINT,
                "best default": f"{best} {defaults[best] / POINT:.1f}",
                "gain": (test["winner"] - defaults.get(FIXED, float("nan"))) / POINT,
                "against best": (test["winner"] - defaults[best]) / POINT,
                "chance": one["chance"],
                "pruned": one["states"].count("PRUNED"),
                "replay agrees": f"{one['agreement']['agree']} of {one['agreement']['trials']}",
                "minutes": one["minutes"],
            }
        )
    return pd.DataFrame(rows)


def replayed(bank: Bank) -> pd.DataFrame:
    """By task and size: between which gains 95% of the replays of a study lie, in points."""
    gains = evaluate(bank, [SHIPPED], SEEDS).groupby("cell").gain_at_once
    return pd.DataFrame({"low": gains.quantile(0.025) / POINT, "high": gains.quantile(0.975) / POINT})


def show(out: Path, bank: Path | None) -> None:
    """Print the table, and the mean gain over groups of tasks."""
    kept = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    if not kept:
        raise SystemExit(f"--out must hold studies that ended, but {out} has none yet.")
    table = rows_of(kept)
    if bank:
        told = replayed(Bank.read(bank)).reindex([f"{one['task']} {SIZES[one['size']]}" for one in kept])
        low, high = told.low.to_numpy(), told.high.to_numpy()
        table["replayed"] = [f"{a:+.1f} to {b:+.1f}" for a, b in zip(low, high, strict=True)]
        table["inside"] = (low <= table.gain) & (table.gain <= high)
    print(table.round(2).to_string(index=False))
    if bank:
        print(f"{table.inside.sum()} of {len(table)} studies are inside 95% of their replays")
    for name in ("gain", "against best"):
        print(f"{name}: {mean_over_groups(table[name].to_numpy(), table.group.to_numpy()):+.2f} points")


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    quickstart = tomllib.loads((ROOT / "studies" / "quickstart.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, action="append", default=[], help="with the rows; several may be given")
    parser.add_argument("--out", type=Path, required=True, help="a study and a result for each task and seed")
    parser.add_argument("--only", type=lambda given: given.split(","), default=[*TASKS], help="such as tweets,snips")
    parser.add_argument("--size", default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--methods", type=lambda given: given.split(","), help="default: all")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--model", default=quickstart["model"]["name_or_path"])
    parser.add_argument("--bank", type=Path, help="whose replays to show beside")
    parser.add_argument("--show", action="store_true", help="print the table, and run nothing")
    return parser.parse_args(given)


def main() -> None:
    """Command line."""
    arguments = arguments_of()
    wanted = [(name, seed) for seed in arguments.seeds for name in arguments.only]
    for name, seed in wanted if not arguments.show else ():
        kept = arguments.out / f"{name}.{arguments.size}.{seed}.json"
        if not kept.is_file() and arguments.size in TASKS[name].sizes:
            found = studied(name, seed, arguments)
            kept.write_text(json.dumps(found))
            print(rows_of([found]).round(2).to_string(index=False), flush=True)
    show(arguments.out, arguments.bank)


if __name__ == "__main__":
    main()
