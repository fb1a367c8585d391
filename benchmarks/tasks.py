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
    e2e             train.csv, test.csv: mr, ref: a sentence for facts of a restaurant (Novikova et al. 2017)

    python benchmarks/tasks.py stsb FOLDER

A task that writes is given a language model by `--model` (`few_shot.py --make-smollm` makes one). It has no head to be
trained alone: what the base model writes stands there, and the report's tables say how the texts score, and how far
the winner's are above the others'.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
    "e2e": {
        "model": {"max_length": 160},
        "task": {
            "kind": "causal-lm",
            "system": "Say in one or two sentences what you are told of a restaurant.",
            "scores": ["rouge_l", "bleu"],
            "written_rows": 300,
        },
        "data": {"train": "train.csv", "test": "test.csv", "instruction": "mr", "output": "ref"},
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
    parser.add_argument("--methods", type=lambda given: given.split(","), help="such as lora,ia3; default: all")
    parser.add_argument("--epochs", type=int, help="of every trial; default: they are searched")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--test-rows", type=int, help="held-out rows, drawn at random; default: all, of e2e 300")
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
            "search": {"trials": arguments.trials, **searched(arguments), **case.get("search", {})},
            "validation": {**case.get("validation", {}), "folds": arguments.folds},
        }
        if count := arguments.test_rows or case["task"].get("written_rows"):
            content["data"]["test"] = drawn(data["test"], count, output)
        spec = StudySpec.from_mapping(content)
        found = run(spec, discover(), make_progress(Console(stderr=True)))
        written = texts_of(spec)
        head = None if written else head_only(spec)
    rows: list[tuple[str, float | None]] = [(f"winner: {found.best.method}", found.test.winner)]
    rows += [(f"untuned default of {name}", score) for name, score in found.test.defaults.items()]
    rows += [("the head alone", head)] if head is not None else []
    rows += [(found.test.baseline_name, found.test.baseline)]
    print(f"| {arguments.case}, {arguments.rows} rows, {arguments.trials} trials | {found.metric} |\n|---|---|")
    for name, score in rows:
        print(f"| {name} | {'–' if score is None else f'{score:.4f}'} |")
    print(written)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes", flush=True)


def searched(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of [search] that were asked for."""
    return {name: getattr(arguments, name) for name in ("methods", "epochs") if getattr(arguments, name)}


def drawn(path: str, count: int, folder: str) -> str:
    """A table of `count` of its rows, no two of them with the same first cell."""
    rows = pd.read_csv(path, dtype=str).sample(frac=1, random_state=0)
    rows.drop_duplicates(rows.columns[0])[:count].to_csv(Path(folder) / "test.csv", index=False)
    return f"{folder}/test.csv"


def texts_of(spec: Any) -> str:
    """The report's tables of texts that were written; empty where none were."""
    from autopeft.reporting.writing_report import COMPARED, WRITTEN
    from autopeft.study import report_section
    from autopeft.study.folder import SECTIONS

    lines = []
    for section in report_section.read(spec.output / SECTIONS):
        if section.title in (WRITTEN, COMPARED) and section.table:
            lines += ["", section.title, f"| {' | '.join(section.table.columns)} |"]
            lines += ["|---" * len(section.table.columns) + "|"]
            lines += [f"| {' | '.join(row)} |" for row in section.table.rows]
    return "\n".join(lines)


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
