"""What a search finds for each kind of task on real rows, beside what needs no search.

The winner, each untuned default, the head trained alone and what looks at no input, all on held-out rows that decide
nothing. A study of `--trials` trials on MiniLM, the case's own model or `--model`, and `--rows` rows at most. FOLDER
holds them:

    snips           train_slots.jsonl, test_slots.jsonl: tokens, tags (Coucke et al. 2018)
    uner            train.jsonl, test.jsonl: tokens, tags of English-EWT (Mayhew et al. 2024)
    stsb            train.csv, test.csv: text, text_pair, score (Cer et al. 2017)
    goemotions      train.csv, test.csv: text, labels with | between them (Demszky et al. 2020)
    xquad           en.jsonl: question, context, answers, title (Artetxe et al. 2020)
    emoji           what `emoji.py` wrote: the category of a picture, read by DINOv2-S (Oquab et al. 2023)
    emoji-names     the same: which name goes with which picture, read by DINOv2-S and MiniLM

    python benchmarks/tasks.py stsb FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

CASES: dict[str, dict[str, Any]] = {
    "snips": {
        "task": {"kind": "token-classification"},
        "data": {"train": "train_slots.jsonl", "test": "test_slots.jsonl"},
    },
    "uner": {
        "task": {"kind": "token-classification"},
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
    },
    "stsb": {
        "task": {"kind": "regression"},
        "data": {"train": "train.csv", "test": "test.csv", "text_pair": "text_pair", "label": "score"},
        "validation": {"metric": "spearman"},
    },
    "goemotions": {
        "task": {"kind": "multi-label-classification", "delimiter": "|"},
        "data": {"train": "train.csv", "test": "test.csv", "label": "labels"},
    },
    "xquad": {
        "task": {"kind": "question-answering"},
        "data": {"train": "en.jsonl", "group": "title", "test_fraction": 0.25},
    },
    "emoji": {
        "model": {"name_or_path": "dinov2", "image_size": 70},
        "task": {"kind": "image-classification"},
        "data": {"train": "emoji.csv", "test_fraction": 0.33},
    },
    "emoji-names": {
        "model": {"name_or_path": "towers", "image_size": 70, "max_length": 32},
        "task": {"kind": "image-text-matching"},
        "data": {"train": "emoji.csv", "text": "name", "test_fraction": 0.33},
    },
}
"""Tables of the study file, by what the benchmark is called; files of [data] are in FOLDER."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=8)
    arguments = parser.parse_args()
    from rich.console import Console

    from autopeft.methods.registry import discover
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run
    from autopeft.study.file import StudySpec

    case, started = CASES[arguments.case], time.monotonic()
    data = {
        key: str(arguments.folder.resolve() / value) if key in ("train", "test") else value
        for key, value in case["data"].items()
    }
    with tempfile.TemporaryDirectory() as output:
        content = {
            **case,
            "name": arguments.case,
            "output": output + "/study",
            "model": {**case.get("model", {}), "name_or_path": model_of(case, arguments)},
            "data": {**data, "max_rows": arguments.rows},
            "search": {"trials": arguments.trials, **case.get("search", {})},
        }
        spec = StudySpec.from_mapping(content)
        found = run(spec, discover(), make_progress(Console(stderr=True)))
        head = head_only(spec)
    rows: list[tuple[str, float | None]] = [(f"winner: {found.best.method}", found.test.winner)]
    rows += [(f"untuned default of {name}", score) for name, score in found.test.defaults.items()]
    rows += [("the head alone", head), (found.test.baseline_name, found.test.baseline)]
    print(f"| {arguments.case}, {arguments.rows} rows, {arguments.trials} trials | {found.metric} |\n|---|---|")
    for name, score in rows:
        print(f"| {name} | {'–' if score is None else f'{score:.4f}'} |")
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes", flush=True)


def head_only(spec: Any) -> float:
    """The score of the head trained alone, as a candidate with the usual hyperparameters is, on the held-out rows."""
    from autopeft.common.seeds import derive_seed
    from autopeft.execution.problem import Problem
    from autopeft.methods.registry import discover
    from autopeft.methods.training_space import TRAINING_SPACE, Hyperparameters
    from autopeft.training.learner import Learner, evaluate, train_epoch

    problem = Problem.from_spec(spec, discover())
    hyper = Hyperparameters(**TRAINING_SPACE.defaults())  # type: ignore[arg-type]  # as declared

    def answers(rows: np.ndarray, data: Any, asked: np.ndarray) -> np.ndarray:
        """To rows of `data`, trained on training `rows`."""
        model = problem.base.copy()
        for name in problem.base.spec.head:
            model.get_submodule(name).requires_grad_(True)
        learner = Learner(model, hyper, len(rows))
        for epoch in range(hyper.epochs):
            seed = derive_seed(spec.seed, epoch)
            train_epoch(learner, problem.train, [rows], problem.task, problem.device, [seed], seed)
        return evaluate(model, data, [asked], problem.task, problem.device)[0]

    task = problem.task
    if task.calibrates:  # as a trial's folds do it
        made = [answers(fold.train, problem.train, fold.validation) for fold in problem.folds]
        rows = np.concatenate([problem.train.rows_of(fold.validation) for fold in problem.folds])
        told = task.calibrated(np.concatenate(made), problem.train.truths[rows])
        task = task.knowing({**task.facts, **told})
    found = answers(problem.all_rows, problem.test, problem.test.everything)
    return task.score(problem.metric, problem.test.truths, found)


def model_of(case: dict[str, Any], arguments: argparse.Namespace) -> str:
    """What was asked for, else the case's own in its folder, else the encoder of the demo."""
    own = case.get("model", {}).get("name_or_path")
    if arguments.model or own:
        return arguments.model or str(arguments.folder.resolve() / own)
    study = Path(__file__).resolve().parent.parent / "studies" / "quickstart.toml"
    return str(tomllib.loads(study.read_text())["model"]["name_or_path"])


if __name__ == "__main__":
    main()
