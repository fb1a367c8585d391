"""What the kept output of the layers below an add-on saves: an epoch of training and its evaluation, with and without.

    python benchmarks/trunk_cache.py                 # a BERT of 12 layers, adapters on the top three
    python benchmarks/trunk_cache.py --layers 6 --width 384

The rows are a study's own; weights are random, since time does not depend on them. Both sides run in turn, round by
round; the first epoch of the side with the cache fills it and is shown apart. Printed are medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, logging

from autopeft.data.split import split
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.architecture import describe
from autopeft.models.attach import attach
from autopeft.models.base import BaseModel
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from autopeft.training.learner import Learner, evaluate, train_epoch
from autopeft.training.trunk_cache import Trunk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", default="studies/quickstart.toml")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--placement", default="pfeiffer")
    parser.add_argument("--on", default="top_quarter", help="the layers that get an adapter")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    problem = Problem.from_spec(StudySpec.from_file(arguments.study), discover())
    task, device, data = problem.task, problem.device, problem.train
    config = BertConfig(
        num_labels=len(problem.rows.labels),
        hidden_size=arguments.width,
        num_hidden_layers=arguments.layers,
        num_attention_heads=12,
        intermediate_size=4 * arguments.width,
    )
    module = AutoModelForSequenceClassification.from_config(config).requires_grad_(False)
    base = BaseModel(module.to(device.type), None, describe(module, task.kind, task.peft_task_type))
    if device.autocast:
        base.lower(device.autocast)
    candidate = problem.space["adapter"].default()
    params = {**candidate.params, "layers": arguments.on, "placement": arguments.placement}
    fold = split(len(data), data.truths, None, 3, seed=0)[0]
    with tempfile.TemporaryDirectory() as folder:
        trunk = Trunk(base, find_task("text-classification"), data, device, Path(folder))
        whole, short = (attach(base, candidate.method, params).to(device.type) for _ in range(2))
        level = trunk.level("adapter", short)
        started = time.perf_counter()
        kept, _ = trunk.prepare("adapter", short)
        filling = time.perf_counter() - started
        sides = {"without": (whole, data), "with": (short, kept)}
        learners = {side: Learner(model, candidate.hyper, len(fold.train)) for side, (model, _) in sides.items()}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for round_ in range(arguments.rounds + 1):
            for side, (model, rows) in sides.items():
                started = time.perf_counter()
                train_epoch(learners[side], rows, [fold.train], task, device, [round_], round_)
                evaluate(model, rows, [fold.validation], task, device)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if round_:
                    times[side].append(time.perf_counter() - started)
    medians = {side: statistics.median(taken) for side, taken in times.items()}
    print(
        f"{len(fold.train)} rows trained, {len(fold.validation)} evaluated; {arguments.layers} layers of width "
        f"{arguments.width}, training starts at layer {level}; kept: {kept.states.nbytes / 2**20:.0f} MiB"
    )
    print(f"an epoch without the cache {medians['without']:.2f} s, with it {medians['with']:.2f} s")
    print(f"ratio {medians['without'] / medians['with']:.2f}; filling it once took {filling:.2f} s")
    assert np.isfinite(medians["with"])


if __name__ == "__main__":
    main()
