"""Does the search find a good model sooner than what one would use without it, `Trainer.hyperparameter_search`?

    python benchmarks/vs_trainer.py --threads 2 --keep vs_trainer.json    # hours on two cores; goes on where it was
    python benchmarks/vs_trainer.py --rows 120 --trials 3 --folds 2 --epochs 1 --repeats 1 --out /tmp

Sides search the same space for the same model, on the same rows and folds, with as many epochs and trials. Each has a
process of its own, which imports this module anew; its clock runs from before that to the end of the last trial.

a. transformers' `Trainer.hyperparameter_search(backend="optuna")` around peft at its defaults: float32, random batches,
   no pruner, a checkpoint at the end of each training.
b. The same at its best: bfloat16 where the device computes it natively, rows grouped by length, a median pruner that
   sees every epoch of every fold, evaluation in batches as large as ours, no checkpoints. Its rows are tokens in memory
   already, so worker processes would only cost their start.
c. `autopeft.search.run.run`, with all it does beside training: admission, the MLflow and Optuna stores, rungs, pruning.
d. The same with twice the trials, which in the time of the peer's can be had.

`hyperparameter_search` knows one split, so its `train` is extended to train one fold after the other, each by Trainer's
own `train` on a model that `model_init` reads from disk anew. Trainer's sides apply a method with the plugin's `apply`,
which for LoRA is `peft.get_peft_model` and nothing else; adapters and prefixes are ours and lent to them. Their
sampler is Optuna's default, from random draws; that our first trials are the methods' defaults is part of our search.
They read rows, folds and space through `Problem`, which loads the model once more than they need.

A repeat is another seed for everything: rows held out, folds, heads, samplers. All figures are medians over repeats.
Writes docs/vs_trainer.md and docs/vs_trainer.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import optuna
import torch

from autopeft.common.locate import locate
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.device import supports_bfloat16
from autopeft.search.pruner import make_pruner
from autopeft.study.file import StudySpec
from autopeft.training.learner import EVALUATION_BATCH_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from autopeft.data.encoded import Encoded
    from autopeft.methods.candidate import Candidate

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "studies" / "quickstart.toml"
SIDES = {"a": "Trainer, defaults", "b": "Trainer, at its best", "c": "autopeft", "d": "autopeft, twice the trials"}
PEERS, OURS = "ab", "cd"
THEIRS = {"epochs": "num_train_epochs", "batch_size": "per_device_train_batch_size", "warmup_ratio": "warmup_steps"}
CLOSE = 0.005
"""Scores that differ by this much or less are the same quality."""


@dataclass(frozen=True)
class Setup:
    """What all sides have in common."""

    rows: int
    trials: int
    folds: int
    epochs: int
    threads: int | None

    def study(self, repeat: int, output: str) -> StudySpec:
        """The quickstart study without its budget, and with fixed epochs, so that all sides train as long."""
        content = tomllib.loads(STUDY.read_text(encoding="utf-8"))
        del content["budget"], content["search"]["timeout"]
        content["data"]["max_rows"] = self.rows
        content["search"] |= {"trials": self.trials, "epochs": self.epochs}
        content["validation"]["folds"] = self.folds
        return StudySpec.from_mapping({**content, "seed": repeat, "output": output})


class Timeline:
    """When each trial of a search ended, in seconds since `started`, and its score; None if it was pruned."""

    def __init__(self, side: str, started: float) -> None:
        self.side, self.started = side, started
        self.points: list[tuple[float, float | None]] = []

    def note(self, score: float | None) -> None:
        """A trial ended with that mean over the folds."""
        self.points.append((round(time.monotonic() - self.started, 2), score))
        print(f"  {self.side}, trial {len(self.points)}: {self.points[-1]}", file=sys.stderr, flush=True)


def ours(setup: Setup, repeat: int, timeline: Timeline) -> tuple[str, float]:
    """Our search; returns its winner and the winner's score on the test rows."""
    from rich.console import Console

    from autopeft.reporting.progress import PlainProgress
    from autopeft.search import run as study

    class Noted(PlainProgress):
        def finished(self, record):
            timeline.note(record.score if record.complete else None)

    with tempfile.TemporaryDirectory() as folder:
        result = study.run(setup.study(repeat, folder), discover(), Noted(Console(quiet=True)))
    return result.best.name, result.test.winner


def peer(setup: Setup, repeat: int, timeline: Timeline) -> tuple[str, float]:
    """Trainer's search; returns its winner and the winner's score on the test rows."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, PrinterCallback, Trainer, TrainingArguments, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    problem = Problem.from_spec(setup.study(repeat, tempfile.gettempdir()), discover())
    where = locate(problem.spec.model.name_or_path, problem.spec.folder)
    rows, test = features(problem.train), features(problem.test)
    cpu = problem.device.type == "cpu"
    options: dict[str, Any] = {"seed": repeat, "use_cpu": cpu, "disable_tqdm": True}
    search: dict[str, Any] = {"sampler": optuna.samplers.TPESampler(seed=repeat)}
    if timeline.side == "b":
        options |= {
            "bf16": supports_bfloat16(problem.device.type),
            "train_sampling_strategy": "group_by_length",
            "per_device_eval_batch_size": EVALUATION_BATCH_SIZE,
            "dataloader_pin_memory": not cpu,
            "eval_strategy": "epoch",
            "save_strategy": "no",
        }
        search["pruner"] = make_pruner("median", 0)  # from the fourth trial on; Optuna's own waits for the sixth

    def build(candidate: Candidate | None) -> torch.nn.Module:
        """The model read from disk, frozen, with the candidate's add-on and a head to train."""
        labels = problem.task.config(problem.rows.labels)
        model = AutoModelForSequenceClassification.from_pretrained(where, dtype=torch.float32, **labels)
        if candidate is None:  # Trainer makes a model before there is a trial
            return model
        model = candidate.method.apply(model.requires_grad_(False), candidate.params, problem.base.spec)
        if not isinstance(model, PeftModel):  # peft trains the head as one of its `modules_to_save`
            for name in problem.base.spec.head:
                model.get_submodule(name).requires_grad_(True)
        return model

    def arguments(candidate: Candidate) -> dict[str, float]:
        """The candidate's hyperparameters by Trainer's names; `warmup_steps` below 1 is a share of all steps."""
        return {THEIRS.get(name, name): value for name, value in candidate.hyper.point.items()}

    class CrossValidating(Trainer):
        """A trial of its search trains every fold; the mean of their scores is the trial's objective."""

        fold = 0

        def train(self, resume_from_checkpoint=None, trial=None, **others):
            scores = []
            try:
                for self.fold, fold in enumerate(problem.folds):
                    self.train_dataset = [rows[i] for i in fold.train]
                    self.eval_dataset = [rows[i] for i in fold.validation]
                    self.objective = None
                    super().train(resume_from_checkpoint, trial, **others)
                    if self.objective is None:  # nothing was evaluated on the way
                        self.objective = self.compute_objective(self.evaluate())
                    scores.append(self.objective)
                self.objective = mean(scores)
            except optuna.TrialPruned:
                timeline.note(None)
                raise
            timeline.note(self.objective)

        def _report_to_hp_search(self, trial, step, metrics):
            """Count in epochs, so that trials of different batch sizes can be compared, over all folds."""
            super()._report_to_hp_search(trial, self.fold * setup.epochs + round(self.state.epoch), metrics)

    def trainer(kind: type[Trainer], model_init, train, evaluation, **settings: Any) -> Trainer:
        made = kind(
            model_init=model_init,
            args=TrainingArguments(folder, **{**options, **settings}),
            train_dataset=train,
            eval_dataset=evaluation,
            processing_class=problem.base.processor,
            compute_metrics=accuracy,
        )
        made.remove_callback(PrinterCallback)
        return made

    with tempfile.TemporaryDirectory() as folder:
        searching = trainer(CrossValidating, lambda trial: build(trial and problem.space.suggest(trial)), rows, rows)
        searching.args.warmup_steps = 0.0  # what hp_space gives is cast to the type that is there; an int would cut it
        best = searching.hyperparameter_search(
            hp_space=lambda trial: arguments(problem.space.suggest(trial)),
            compute_objective=lambda metrics: metrics["eval_accuracy"],
            n_trials=setup.trials,
            direction="maximize",
            backend="optuna",
            **search,
        )
        winner = problem.space.parse(best.hyperparameters)
        refit = trainer(Trainer, lambda: build(winner), rows, test, **arguments(winner), eval_strategy="no")
        refit.train()
        return str(winner), refit.evaluate()["eval_accuracy"]


def features(data: Encoded) -> list[dict[str, Any]]:
    """The rows as Trainer's collator takes them: lists of tokens, not padded."""
    found = []
    for row, (start, end) in enumerate(itertools.pairwise(data.fields["input_ids"].offsets)):
        tokens = {
            name: field.values[start:end].tolist() for name, field in data.fields.items() if field.offsets is not None
        }
        found.append({**tokens, "attention_mask": [1] * int(end - start), "labels": int(data.truths[row])})
    return found


def accuracy(evaluation: Any) -> dict[str, float]:
    return {"accuracy": float((evaluation.predictions.argmax(-1) == evaluation.label_ids).mean())}


def measure(setup: Setup, side: str, repeat: int, started: float) -> dict[str, Any]:
    """One search, in a process of its own that was started when the monotonic clock read `started`."""
    if setup.threads:
        torch.set_num_threads(setup.threads)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if kind == "cuda" else f"a CPU with {torch.get_num_threads()} thread(s)"
    device = f"{name}, {'bfloat16' if supports_bfloat16(kind) else 'no native bfloat16'}"
    timeline = Timeline(side, started)
    if side == "d":
        setup = replace(setup, trials=2 * setup.trials)
    winner, test = (ours if side in OURS else peer)(setup, repeat, timeline)
    found = {"device": device, "winner": winner, "test": test, "timeline": timeline.points}
    return {"side": side, "repeat": repeat, **found}


def measure_all(
    measure: Callable[[Any, str, int, float], dict[str, Any]],
    setup: Any,
    sides: Sequence[str],
    repeats: int,
    keep: Path | None,
) -> list[dict[str, Any]]:
    """Every side in every repeat, in turns, so that a slow hour of the machine slows all; those kept are not rerun."""
    runs = json.loads(keep.read_text(encoding="utf-8")) if keep and keep.is_file() else []
    if any(run["setup"] != asdict(setup) for run in runs):
        raise SystemExit(f"{keep} holds runs of another setup, {runs[0]['setup']}; give those options or another file.")
    done = {(run["repeat"], run["side"]) for run in runs}
    for repeat, side in itertools.product(range(repeats), sides):
        if (repeat, side) not in done:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found = pool.submit(measure, setup, side, repeat, time.monotonic()).result()
            runs.append({**found, "setup": asdict(setup)})
            if keep:
                keep.write_text(json.dumps(runs, indent=1), encoding="utf-8")
    return [run for run in runs if run["side"] in sides and run["repeat"] < repeats]


def took(run: dict[str, Any]) -> float:
    """Seconds of the whole search."""
    return run["timeline"][-1][0]


def rises(run: dict[str, Any]) -> list[tuple[float, float]]:
    """When the best score so far rose, and to what."""
    points: list[tuple[float, float]] = []
    for seconds, score in run["timeline"]:
        if score is not None and (not points or score > points[-1][1]):
            points.append((seconds, score))
    return points


def reached(run: dict[str, Any], other: dict[str, Any]) -> float:
    """Seconds that `run` took to come within CLOSE of the best of `other`; infinite if it never did."""
    quality = rises(other)[-1][1] - CLOSE - 1e-9
    return next((seconds for seconds, score in rises(run) if score >= quality), math.inf)


def table(runs: list[dict[str, Any]], our: str) -> list[str]:
    """A row for each of the peer's sides and for one of ours: medians, and in brackets the range of a ratio."""
    lines = [
        f"| side | whole search | pruned | best validation | test | within {CLOSE} of its best after | "
        "autopeft as good after | times sooner | whole search: times as fast |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    ours = {run["repeat"]: run for run in runs if run["side"] == our}
    for side in (*PEERS, our):
        mine = [run for run in runs if run["side"] == side]
        if not mine:
            continue
        pairs = [(run, ours[run["repeat"]]) for run in mine if side != our and run["repeat"] in ours]
        cells = [
            SIDES[side],
            f"{median(map(took, mine)):.0f} s",
            f"{median(sum(score is None for _, score in run['timeline']) for run in mine):g}",
            f"{median(rises(run)[-1][1] for run in mine):.4f}",
            f"{median(run['test'] for run in mine):.4f}",
            f"{median(reached(run, run) for run in mine):.0f} s",
        ]
        if pairs:
            times = [reached(our, run) for run, our in pairs]
            after = "never" if math.isinf(median(times)) else f"{median(times):.0f} s"
            missed = sum(map(math.isinf, times))
            cells += [
                after + f" (not in {missed} of {len(pairs)}, a ratio of 0)" * bool(missed),
                ratio(reached(run, run) / reached(our, run) for run, our in pairs),
                ratio(took(run) / took(our) for run, our in pairs),
            ]
        lines.append("| " + " | ".join(cells + ["–"] * (9 - len(cells))) + " |")
    return lines


def ratio(values: Iterable[float]) -> str:
    """Median and range."""
    ratios = sorted(values)
    return f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Best score against wall time: a line a search."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for color, (side, name) in enumerate(SIDES.items()):
        for number, run in enumerate(run for run in runs if run["side"] == side):
            points = rises(run)
            times, scores = zip(*points, (took(run), points[-1][1]), strict=True)
            axes.step(times, scores, where="post", color=f"C{color}", label="_" * bool(number) + name)
            axes.plot(times[-1], scores[-1], marker="o", color=f"C{color}")
    axes.set(xlabel="seconds since the start", ylabel="best mean validation accuracy so far")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title("A line a search, from its first whole trial to its end")
    axes.legend()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1200, help="with those held out for the test")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="PyTorch's, on a CPU; default: its own choice")
    parser.add_argument("--sides", type=lambda given: given.split(","), default=list(SIDES), help="such as a,c")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--keep", type=Path, metavar="FILE.json", help="keeps finished searches, to go on from")
    given = parser.parse_args()
    if unknown := set(given.sides) - set(SIDES):
        parser.error(f"--sides must be some of {', '.join(SIDES)}, but got {', '.join(sorted(unknown))}.")
    setup = Setup(given.rows, given.trials, given.folds, given.epochs, given.threads)
    runs = measure_all(measure, setup, given.sides, given.repeats, given.keep)
    held_out = setup.study(0, "unused").data.test_fraction
    text = f"""# Against Trainer.hyperparameter_search

`benchmarks/vs_trainer.py` wrote this page and says what each side does. The task is three-class sentiment of
{setup.rows:,} tweets, {held_out:.0%} of them held out, with MiniLM, {setup.trials} trials, folds: {setup.folds},
epochs: {setup.epochs}; on {" and ".join(sorted({run["device"] for run in runs}))}.
Figures are medians of {given.repeats}, with the range in brackets.

{(2 * chr(10)).join(chr(10).join(table(runs, our)) for our in OURS if our in given.sides)}

![Best score against wall time](vs_trainer.png)
"""
    print(text)
    (given.out / "vs_trainer.md").write_text(text, encoding="utf-8")
    draw(runs, given.out / "vs_trainer.png")


if __name__ == "__main__":
    main()
