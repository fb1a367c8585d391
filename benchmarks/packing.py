"""Training steps of five folds, one after the other against packed in one pass.

    python benchmarks/packing.py        # BERT-base shape, batch 16, length 64, on the GPU if there is one
    python benchmarks/packing.py --shape minilm --batch 4 --length 16

Every side runs whole steps: forward, backward, clipping and update, as a trial does. The sides take turns; printed are
medians over the rounds. Weights are random: time does not depend on their values.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, logging

from autopeft.data.encoded import Encoded, Field, token_fields
from autopeft.execution.packing_choice import gradients
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.contract import PeftMethod
from autopeft.methods.registry import discover
from autopeft.models.architecture import describe
from autopeft.models.attach import attach
from autopeft.models.base import BaseModel
from autopeft.models.device import Device, supports_bfloat16
from autopeft.models.modes import train_mode
from autopeft.tasks.registry import find_task
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.learner import Learner
from autopeft.training.packing import pack
from autopeft.training.packing_check import packable

TASK = find_task("text-classification")
SHAPES = {
    "bert-base": BertConfig(num_labels=3),
    "minilm": BertConfig(
        num_labels=3, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="bert-base")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--method", action="append", help="only this one; may be given again")
    parser.add_argument("--steps", type=int, default=None, help="of a round; default: 2 on a CPU, 20 on a GPU")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    device = Device(kind, torch.bfloat16 if supports_bfloat16(kind) else None)
    steps = arguments.steps or (20 if kind == "cuda" else 2)
    module = AutoModelForSequenceClassification.from_config(SHAPES[arguments.shape]).requires_grad_(False)
    base = BaseModel(module.to(kind), None, describe(module, TASK.kind, TASK.peft_task_type))
    if device.autocast:
        base.lower(device.autocast)
    space = CandidateSpace.build(discover().methods.values(), base.spec, {}, ())
    data = made_up(arguments.folds * arguments.batch, arguments.length)
    rows = np.array_split(np.arange(len(data)), arguments.folds)
    name = torch.cuda.get_device_name() if kind == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{arguments.shape}, {arguments.folds} folds, batch {arguments.batch} of {arguments.length} tokens, "
        f"{device.autocast or torch.float32}, {name}"
    )
    print(f"{'method':<16}{'one after the other':>22}{'packed':>14}{'ratio':>8}   samples a second")
    for method in arguments.method or space:
        candidate = space[method].default()
        sites = way(base, candidate, data, rows, device)
        if sites is None:
            print(f"{method:<16}trains one fold after the other", flush=True)
            continue
        alone = [learner(base, candidate, Execution(arguments.batch)) for _ in rows]
        packed = learner(base, candidate, Execution(arguments.batch, folds=arguments.folds), sites)
        times: dict[str, list[float]] = {"alone": [], "packed": []}
        for round_ in range(arguments.rounds + 1):
            for side, runs in (
                ("alone", [(one, [few]) for one, few in zip(alone, rows, strict=True)]),
                ("packed", [(packed, rows)]),
            ):
                started = time.perf_counter()
                for one, few in runs:
                    one.take_turn()
                    for _ in range(steps):
                        one.step(one.load(data, few, kind), TASK, device)
                    one.end_turn()
                if kind == "cuda":
                    torch.cuda.synchronize()
                if round_:  # the first one warms up
                    times[side].append(time.perf_counter() - started)
        samples = steps * len(data)
        rates = {side: samples / statistics.median(taken) for side, taken in times.items()}
        ratio = rates["packed"] / rates["alone"]
        print(f"{method:<16}{rates['alone']:>22.1f}{rates['packed']:>14.1f}{ratio:>8.2f}", flush=True)


def way(base, candidate, data: Encoded, rows: list[np.ndarray], device: Device) -> bool | None:
    """How the candidate's folds are packed, as a study finds it out; None where they are not."""
    if type(candidate.method).callback is not PeftMethod.callback:
        return None
    few = Batch.of(data, [one[:2] for one in rows], device.type)

    def of(model, batch: Batch) -> dict[str, torch.Tensor]:
        return gradients(model, batch, TASK, device)

    def make():
        return attach(base, candidate.method, candidate.params).to(device.type)

    return packable(make, of, few, device.autocast or torch.float32)


def learner(base, candidate, execution: Execution, sites: bool = False) -> Learner:
    """A learner on a model of its own, in training mode."""
    model = attach(base, candidate.method, candidate.params).to(next(base.module.parameters()).device)
    if execution.folds > 1:
        pack(model, execution.folds, sites=sites)
    train_mode(model)
    return Learner(model, candidate.hyper, 1000, execution)


def made_up(rows: int, length: int) -> Encoded:
    """Rows of random words."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(1000, 20000, rows * length).astype(np.int32)
    labels = generator.integers(0, 3, rows)
    fields = {**token_fields({"input_ids": tokens}, np.arange(rows + 1) * length, 0), "labels": Field(labels)}
    return Encoded(fields, labels, axis="input_ids")


if __name__ == "__main__":
    main()
