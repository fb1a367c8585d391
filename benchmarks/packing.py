"""Training steps of five folds, one after the other against packed in one pass.

    python benchmarks/packing.py        # BERT-base shape, batch 16, length 64, on the GPU if there is one
    python benchmarks/packing.py --shape minilm --batch 4 --length 16
    python benchmarks/packing.py --candidates 8        # LoRA and adapters: the folds of 8 candidates, all in one pass

Every side runs whole steps: forward, backward, clipping and update, as a trial does. The sides take turns; printed are
medians over the rounds. Weights are random: time does not depend on their values. Candidates that share a pass have
ranks from 4 to 32 or widths up to an eighth of the model's, and rates, decays and dropout of their own; before they are
timed, each one's gradients are compared with those it has alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, logging

from autopeft.data.encoded import Encoded, Field, token_fields
from autopeft.data.split import Fold
from autopeft.execution.packing_choice import gradients
from autopeft.methods.candidate import Candidate, CandidateSpace
from autopeft.methods.contract import PeftMethod
from autopeft.methods.registry import discover
from autopeft.models.architecture import describe
from autopeft.models.attach import attach, trainable
from autopeft.models.base import BaseModel
from autopeft.models.device import Device, supports_bfloat16
from autopeft.models.modes import train_mode
from autopeft.tasks.registry import find_task
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.cohort import Cohort
from autopeft.training.cohort_check import agrees
from autopeft.training.cohort_member import Member
from autopeft.training.learner import Learner
from autopeft.training.packing import pack
from autopeft.training.packing_check import packable
from autopeft.training.setup import Setup

TASK = find_task("text-classification")
UNEQUAL = ("lora", "adapter")
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
    parser.add_argument("--candidates", type=int, default=1, help="of LoRA and of adapters in one pass")
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
    several = arguments.candidates > 1
    name = torch.cuda.get_device_name() if kind == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{arguments.shape}, {arguments.folds} folds, batch {arguments.batch} of {arguments.length} tokens, "
        f"{device.autocast or torch.float32}, {name}" + f", {arguments.candidates} candidates" * several
    )
    print(f"{'method':<16}{'one after the other':>22}{'packed':>14}{'ratio':>8}   samples a second")
    for method in (arguments.method or UNEQUAL) if several else ():
        compare_candidates(method, base, space, device, arguments, steps)
    for method in () if several else arguments.method or space:
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


def unequal(space: CandidateSpace, method: str, count: int) -> list[Candidate]:
    """Candidates of other sizes, rates, decays and, of LoRA, dropout."""
    found = []
    for part in np.linspace(0, 1, count):
        sizes = {
            "lora": {"r": round(4 * 8**part), "lora_alpha": round(4 * 16**part), "lora_dropout": 0.1 * float(part)},
            "adapter": {"reduction_factor": round(64 / 8**part)},
        }[method]
        one = space[method].default()
        hyper = replace(one.hyper, learning_rate=1e-4 * 30**part, weight_decay=0.1 * float(part), epochs=10_000)
        found.append(replace(one, params={**one.params, **sizes}, hyper=replace(hyper, warmup_ratio=0.0)))
    return found


def compare_candidates(method: str, base, space: CandidateSpace, device: Device, arguments, steps: int) -> None:
    """Print the samples a second of candidates' folds one after the other, and of all in one pass."""
    folds, batch, count = arguments.folds, arguments.batch, arguments.candidates
    data = made_up(folds * batch * steps, arguments.length)
    parts = [Fold(rows, rows) for rows in np.array_split(np.arange(len(data)), folds)]
    setup = Setup(TASK, data, parts, device, "accuracy", 0)
    candidates = unequal(space, method, count)

    def factors(candidate: Candidate, model) -> dict[str, float]:
        return dict(candidate.method.factors(trainable(model), candidate.params, base.spec))

    def member(candidate: Candidate) -> Member:
        sized = replace(candidate, hyper=replace(candidate.hyper, batch_size=batch))
        one = learner(base, sized, Execution(batch, folds=folds), rows=batch * steps)
        return Member(one, setup, factors(candidate, one.model))

    wide = attach(base, candidates[-1].method, candidates[-1].params).to(device.type)
    cohort = Cohort(wide, setup, factors(candidates[-1], wide))
    for candidate in candidates:
        cohort.admit(member(candidate))

    def few(several: int) -> Batch:
        return Batch.of(data, [fold.train[:2] for fold in parts] * several, device.type)

    def of(model, rows: Batch) -> dict[str, torch.Tensor]:
        return gradients(model, rows, TASK, device)

    same = agrees(cohort, cohort.members, of, few, device.autocast or torch.float32)
    alone = [learner(base, candidate, Execution(batch)) for candidate in candidates]
    times: dict[str, list[float]] = {"alone": [], "packed": []}
    for round_ in range(arguments.rounds + 1):
        for side in times:
            started = time.perf_counter()
            if side == "packed":
                cohort.train(steps)
            for one in alone if side == "alone" else ():
                for fold in parts:
                    one.take_turn()
                    for rows in np.array_split(fold.train, steps):
                        one.step(one.load(data, [rows], device.type), TASK, device)
                    one.end_turn()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_:  # the first one warms up
                times[side].append(time.perf_counter() - started)
    rates = {side: count * len(data) / statistics.median(taken) for side, taken in times.items()}
    ratio = rates["packed"] / rates["alone"]
    told = "gradients agree" if same else "GRADIENTS DIFFER"
    print(f"{method:<16}{rates['alone']:>22.1f}{rates['packed']:>14.1f}{ratio:>8.2f}   {told}", flush=True)


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


def learner(base, candidate, execution: Execution, sites: bool = False, rows: int = 1000) -> Learner:
    """A learner on a model of its own, in training mode."""
    model = attach(base, candidate.method, candidate.params).to(next(base.module.parameters()).device)
    if execution.folds > 1:
        pack(model, execution.folds, sites=sites)
    train_mode(model)
    return Learner(model, candidate.hyper, rows, execution)


def made_up(rows: int, length: int) -> Encoded:
    """Rows of random words."""
    generator = np.random.default_rng(0)
    tokens = generator.integers(1000, 20000, rows * length).astype(np.int32)
    labels = generator.integers(0, 3, rows)
    fields = {**token_fields({"input_ids": tokens}, np.arange(rows + 1) * length, 0), "labels": Field(labels)}
    return Encoded(fields, labels, axis="input_ids")


if __name__ == "__main__":
    main()
