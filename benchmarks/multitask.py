"""Whether three tasks of different kinds gain from being learnt on one base model, at the same number of trained rows.

Emotions (a label), likeness (a number for two texts) and names (a tag for each word) of the bank, on one MiniLM. For
each seed other rows are drawn. One study learns all three; it trains each task's single-task default first. Three
studies learn one each, with one trial more, so that both sides train on the same rows equally often: all trials have
`--epochs` epochs, and nothing is pruned or raced. Prints for each task the score on the test rows of the
single-task default, the winner of its own study, and the winner of the study of all, with the paired difference of the
last two and its t-interval over the seeds; and what was shared.

    OMP_NUM_THREADS=1 python benchmarks/multitask.py --folder DATA --out DIR      # DATA: see bank/README.md
    python benchmarks/multitask.py --folder DATA --out DIR --tables               # what is there so far

It goes on where it was. `--quick` has few rows, trials and epochs, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "bank"))

from drawing import drawn  # noqa: E402  # beside the bank's own scripts
from sources import TASKS, Folders  # noqa: E402  # likewise

from autopeft.data.split import thin  # noqa: E402  # likewise
from autopeft.tasks.registry import find_task  # noqa: E402  # likewise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.study.record import Result

ROWS = {"emotions": 300, "likeness": 150, "names": 100}
"""Training rows of each task, of very different numbers, as several tasks have them."""

QUICK_ROWS = {"emotions": 150, "likeness": 40, "names": 40}
TESTED, QUICK_TESTED = 600, 60
OPTIONS = ("model", "trials", "epochs", "batch_size", "folds", "max_length", "methods", "quick")
"""What the scores of a seed depend on; seeds with different ones are not put into one table."""

METRICS = {"emotions": "f1_macro", "likeness": "spearman", "names": "entity_f1"}


def files(folders: Folders, seed: int, out: Path, rows: Mapping[str, int], tested: int) -> dict[str, dict[str, Any]]:
    """The tables `[[tasks]]` of a seed, whose rows are written where they are not there yet."""
    found = {}
    for name, count in rows.items():
        task, train = TASKS[name], out / "rows" / f"{name}.{seed}.train.jsonl"
        test = train.with_name(f"{name}.{tested}.test.jsonl")
        if not (train.is_file() and test.is_file()):
            kind = find_task(task.kind)
            parts = drawn(task, folders)
            train.parent.mkdir(parents=True, exist_ok=True)
            thin(parts[0], kind.strata(parts[0]), count, seed).to_json(train, orient="records", lines=True)
            thin(parts[1], kind.strata(parts[1]), tested, 0).to_json(test, orient="records", lines=True)
        columns = json.loads(test.read_text(encoding="utf-8").partition("\n")[0])
        data = {"train": str(train.resolve()), "test": str(test.resolve()), **{column: column for column in columns}}
        found[name] = {"name": name, "kind": task.kind, "metric": METRICS[name], "data": data}
    return found


def study(name: str, own: Mapping[str, Any], arguments: argparse.Namespace, seed: int, trials: int) -> Result:
    """What a study with these tables finds; from its folder, if it is finished."""
    from rich.console import Console

    from autopeft.methods.registry import discover
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run
    from autopeft.study.file import StudySpec

    content = {
        "name": name,
        "seed": seed,
        "output": str(arguments.out.resolve() / f"seed_{seed}" / name),
        "model": {"name_or_path": arguments.model, "max_length": arguments.max_length, "dtype": "float32"},
        "search": {
            "methods": arguments.methods,
            "trials": trials,
            "epochs": arguments.epochs,
            "batch_size": arguments.batch_size,
            "pruner": "none",
            "race": 0,
            "references": False,
            "portfolio": False,
        },
        "validation": {"folds": arguments.folds, **own.get("validation", {})},
        **{key: value for key, value in own.items() if key != "validation"},
    }
    return run(StudySpec.from_mapping(content), discover(), make_progress(Console(stderr=True)))


def measured(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The scores of a seed, and the rows that each side trained on in its search."""
    kept = arguments.out / f"seed_{seed}.json"
    options = {name: value for name, value in vars(arguments).items() if name in OPTIONS}
    if kept.is_file():
        found = json.loads(kept.read_text(encoding="utf-8"))
        if not arguments.tables and found["options"] != options:
            sys.exit(f"{kept} was measured with {found['options']}, not {options}: take another --out.")
        return found
    rows, tested = (QUICK_ROWS, QUICK_TESTED) if arguments.quick else (ROWS, TESTED)
    tasks = files(Folders(arguments.folder), seed, arguments.out, rows, tested)
    together = study("together", {"tasks": [*tasks.values()]}, arguments, seed, arguments.trials)
    found: dict[str, Any] = {
        "options": options,
        "best": together.best.params,
        "gain": together.test.winner,
        "tasks": {},
    }
    epochs, alone_rows = (arguments.epochs * (arguments.folds - 1) * n for n in (sum(rows.values()), 0))
    found["rows_together"] = epochs * (sum(one.complete for one in together.records) + 1)
    for name, task in tasks.items():
        own = {"task": {"kind": task["kind"]}, "data": task["data"], "validation": {"metric": task["metric"]}}
        alone = study(name, own, arguments, seed, arguments.trials + 1)
        alone_rows += arguments.epochs * (arguments.folds - 1) * rows[name] * sum(one.complete for one in alone.records)
        score = together.test.tasks[name]
        found["tasks"][name] = {
            "metric": score.metric,
            "baseline": score.baseline,
            "default": score.single,
            "alone": alone.test.winner,
            "together": score.score,
            "cross_validation": [score.lead.mean, score.lead.error],
        }
    found["rows_alone"] = alone_rows
    kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def told(found: Mapping[int, Mapping[str, Any]]) -> str:
    """The tables, in Markdown."""
    names = [*next(iter(found.values()))["tasks"]]
    lines = [
        "| task | metric | baseline | single-task default | its own study | all in one study | difference (95%) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        each = [one["tasks"][name] for one in found.values()]
        means = [np.mean([one[key] for one in each]) for key in ("baseline", "default", "alone", "together")]
        cells = " | ".join(f"{mean:.4f}" for mean in means)
        gap = interval([one["together"] - one["alone"] for one in each])
        lines.append(f"| {name} | {each[0]['metric']} | {cells} | {gap} |")
    gaps = [np.mean([one["tasks"][name]["together"] - one["tasks"][name]["alone"] for name in names])
            for one in found.values()]  # fmt: skip
    lines.append(f"| mean of the three | | | | | | {interval(gaps)} |")
    lines += [
        "",
        "| seed | winner | sharing | temperature | rows trained together | alone |",
        "|---|---|---|---|---|---|",
    ]
    for seed, one in found.items():
        method = one["best"]["method"]
        sharing, temperature = (one["best"][f"{method}.{key}"] for key in ("sharing", "temperature"))
        lines.append(
            f"| {seed} | {method} | {sharing} | {temperature:.2g} | {one['rows_together']:,} | {one['rows_alone']:,} |"
        )
    return "\n".join(lines)


def interval(values: list[float]) -> str:
    """The mean with its t-interval."""
    from scipy import stats

    mean = f"{np.mean(values):+.4f}"
    if len(values) < 2 or not np.std(values):
        return mean
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    return f"{mean} ({low:+.4f} to {high:+.4f})"


def main() -> None:
    """Command line."""
    model = tomllib.loads((ROOT / "studies" / "quickstart.toml").read_text(encoding="utf-8"))["model"]["name_or_path"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, action="append", required=True, help="with the rows; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="where studies and scores are kept")
    parser.add_argument("--model", default=model)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--methods", nargs="+", default=["lora", "adapter"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.epochs, arguments.seeds = 2, 1, arguments.seeds[:1]
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {
        seed: measured(arguments, seed)
        for seed in arguments.seeds
        if not arguments.tables or (arguments.out / f"seed_{seed}.json").is_file()
    }
    print(told(found) if found else "There is nothing yet.")


if __name__ == "__main__":
    main()
