"""What composes best what four tasks learnt, for a fifth task with few rows: fusion, stacking, merging, or nothing.

The intents of Banking77 are drawn into five groups, other ones for each split. Four groups are the sources: each trains
an adapter and a LoRA at their defaults. The fifth is the new task, with `--rows` training rows and all of its test
rows. Each way to compose is a study of `--trials` trials on the same rows and folds; a way without anything to search
has one trial, and the best single source one for each source. Every study chooses by cross-validation, and its winner
is refitted and scored once on the test rows. Prints the mean accuracy over the splits with its t-interval, and the
paired difference from LoRA and from an adapter without sources.

    OMP_NUM_THREADS=1 python benchmarks/composing.py --folder DATA --out DIR      # DATA: see bank/README.md
    python benchmarks/composing.py --out DIR --tables                             # what is there so far
    python benchmarks/composing.py --out benchmarks/composing --tables            # the table of docs/composing.md

It goes on where it was; a split that is finished stays as it is, whatever the options.
`--quick` has few rows, trials and epochs, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from multitask import interval

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "bank"))

from drawing import key  # noqa: E402  # beside the bank's own scripts
from sources import TASKS, Folders  # noqa: E402  # likewise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from autopeft.study.record import Result

GROUPS, QUICK_ROWS = 5, 60
SOURCES = ("adapter", "lora")
BASELINES = ("LoRA, no source", "adapter, no source")


@dataclass(frozen=True)
class Way:
    """A way to compose, or to do without.

    Attributes:
        method: of the study.
        of: the method of the sources; "" where there are none.
        search: what the study file says about the method's dimensions.
        alone: whether its dimension `sources` has each source alone, and nothing else.
        single: whether there is nothing to search.
    """

    method: str
    of: str = ""
    search: Mapping[str, Any] = field(default_factory=dict)
    alone: bool = False
    single: bool = False


MEAN = {"sources": "all", "combination": "cat", "trained": "head"}

WAYS = {
    BASELINES[0]: Way("lora"),
    BASELINES[1]: Way("adapter", search={"placement": "pfeiffer"}),
    "fusion of adapters": Way("fusion", "adapter"),
    "an adapter stacked on adapters": Way("stacked", "adapter", {"own": "adapter"}),
    "the best single adapter": Way("stacked", "adapter", {"own": "none"}, alone=True),
    "the mean of adapters": Way("stacked", "adapter", {"own": "none", "sources": "all"}, single=True),
    "merged LoRAs": Way("merged", "lora", {"sources": "all", "trained": "head"}),
    "merged LoRAs, trained on": Way("merged", "lora", {"sources": "all", "trained": "add_on"}),
    "the best single LoRA": Way("merged", "lora", {"trained": "head"}, alone=True),
    "the mean of LoRAs": Way("merged", "lora", MEAN, single=True),
}


def groups(seed: int, arguments: argparse.Namespace) -> list[dict[str, str]]:
    """The [data] of each group of a split, the new task last; the rows are written where they are not there yet.

    A training row whose text is nearly that of a test row, of any group, is left out.
    """
    train, test = TASKS["banking"].read(Folders(arguments.folder))
    tested = {key(row) for row in test.to_dict("records")}
    train = train[[key(row) not in tested for row in train.to_dict("records")]]
    folder = arguments.out.resolve() / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.random.default_rng(seed).permutation(sorted({*train["label"]}))
    found = []
    for number, own in enumerate(np.array_split(labels, GROUPS), 1):
        source_rows = QUICK_ROWS if arguments.quick else arguments.source_rows
        count = arguments.rows if number == GROUPS else source_rows
        held = QUICK_ROWS if arguments.quick else len(test)
        parts, data = {"train": drawn(train, own, count, seed), "test": drawn(test, own, held, seed)}, {}
        for part, frame in parts.items():
            path = folder / f"{number}.{count}.{part}.csv"
            if not path.is_file():
                frame.to_csv(path, index=False)
            data[part] = str(path)
        found.append(data)
    return found


def drawn(frame: pd.DataFrame, labels: Iterable[str], count: int, seed: int) -> pd.DataFrame:
    """`count` rows with these labels, about equally many of each, or all if there are fewer."""
    rows = frame[frame["label"].isin(labels)].sample(frac=1, random_state=seed)
    order = rows.groupby("label").cumcount().sort_values(kind="stable").index
    return rows.loc[order[:count]]


def study(name: str, data: Mapping[str, str], seed: int, arguments: argparse.Namespace, **more: Any) -> Result:
    """What a study with these tables finds; from its folder, if it is finished."""
    from rich.console import Console

    from autopeft.methods.registry import discover
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run
    from autopeft.study.file import StudySpec

    fixed = {"references": False, "portfolio": False, "race": 0, "pruner": "none"}
    length = more.get("epochs", arguments.epochs)
    epochs = {} if length is None else {"epochs": length}
    content = {
        "name": name,
        "seed": seed,
        "output": str(arguments.out.resolve() / f"seed_{seed}" / name),
        "model": {"name_or_path": arguments.model, "max_length": arguments.max_length, "dtype": "float32"},
        "task": {"kind": "text-classification"},
        "data": dict(data),
        "search": {**fixed, **epochs, **more["search"]},
        "methods": more.get("methods", {}),
        "validation": more.get("validation", {}),
    }
    return run(StudySpec.from_mapping(content), discover(), make_progress(Console(stderr=True)))


def sources(parts: Sequence[Mapping[str, str]], seed: int, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The folders of the source studies, by method."""
    found: dict[str, list[str]] = {}
    for method in SOURCES:
        for number, data in enumerate(parts, 1):
            search: dict[str, Any] = {"methods": [method], "trials": 1}
            few = {"epochs": arguments.source_epochs, "validation": {"folds": 2}}  # only its refit is used
            study(f"{method}_{number}", data, seed, arguments, search=search, **few)
            found.setdefault(method, []).append(str(arguments.out.resolve() / f"seed_{seed}" / f"{method}_{number}"))
    return found


def measured(seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The scores of each way on a split."""
    kept = arguments.out / f"seed_{seed}.json"
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    if {*WAYS} <= {*found}:
        return found
    *parts, target = groups(seed, arguments)
    given, found = sources(parts, seed, arguments), {}
    for name, way in WAYS.items():
        own, trials = dict(way.search), 1 if way.single else arguments.trials
        if way.single and way.method == "merged":
            own |= {f"weight_{place}": 1.0 for place in range(1, GROUPS)}
        if way.alone:
            own["sources"], trials = [f"only_{way.of}_{number}" for number in range(1, GROUPS)], GROUPS - 1
        search = {"methods": [way.method], "trials": trials, **({way.method: own} if own else {})}
        methods = {way.method: {"sources": given[way.of]}} if way.of else {}
        folder = "_".join(name.replace(",", "").lower().split())
        made = study(folder, target, seed, arguments, search=search, methods=methods)
        found[name] = {
            "test": made.test.winner,
            "default": made.test.defaults[way.method],
            "folds": made.best.score,
            "params": made.best.trainable_params,
            "trials": sum(one.complete for one in made.records),
            "best": made.best.params,
        }
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def told(found: Mapping[int, Mapping[str, Any]]) -> str:
    """The table, in Markdown."""
    lines = [
        f"| | trials | trained parameters | folds | test | from {BASELINES[0]} | from {BASELINES[1]} |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in WAYS:
        each = {seed: one for seed, one in found.items() if name in one}
        if not each:
            continue
        here = [one[name] for one in each.values()]
        gaps = [
            interval([one[name]["test"] - one[other]["test"] for one in each.values()]) if other != name else "–"
            for other in BASELINES
        ]
        folds, params = np.mean([one["folds"] for one in here]), np.median([one["params"] for one in here])
        score = interval([one["test"] for one in here]).replace("+", "")
        cells = (f"{here[0]['trials']}", f"{params:,.0f}", f"{folds:.4f}", score)
        lines.append(f"| {name} | {' | '.join(cells)} | {' | '.join(gaps)} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    model = tomllib.loads((ROOT / "studies" / "quickstart.toml").read_text(encoding="utf-8"))["model"]["name_or_path"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, action="append", default=[], help="with the rows; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="where studies and scores are kept")
    parser.add_argument("--model", default=model)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", type=int, default=100, help="training rows of the new task")
    parser.add_argument("--source-rows", type=int, default=600, help="training rows of each source")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, help="default: as the studies choose")
    parser.add_argument("--source-epochs", type=int, help="of the sources; likewise")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.epochs, arguments.source_epochs = 2, 1, 1
        arguments.seeds = arguments.seeds[:1]
    if not (arguments.folder or arguments.tables):
        parser.error("`--folder` must name a folder with the rows, unless `--tables` is given.")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not arguments.tables:
        for seed in arguments.seeds:
            measured(seed, arguments)
    kept = {seed: arguments.out / f"seed_{seed}.json" for seed in arguments.seeds}
    found = {seed: json.loads(path.read_text(encoding="utf-8")) for seed, path in kept.items() if path.is_file()}
    print(told(found) if found else "There is nothing yet.")


if __name__ == "__main__":
    main()
