"""The sides of `vs_sft.py`: our loop and trl's `SFTTrainer`, what both train, and what measures both."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from autopeft.models.attach import attach
from autopeft.models.device import supports_bfloat16
from autopeft.study.file import StudySpec

if TYPE_CHECKING:
    from autopeft.data.encoded import Encoded
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate

CHUNK = 32
"""Rows that are scored at a time."""


@dataclass(frozen=True)
class Setup:
    """What all sides have in common."""

    model: str
    folder: str
    rows: int
    held_out: int
    epochs: int
    batch: int
    learning_rate: float
    r: int
    lora_alpha: int
    targets: str
    max_length: int
    threads: int | None
    search: int = 0
    evaluations: int = 2

    def tables(self, repeat: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Prompts and completions to train on, and held out."""
        found = []
        for part, count in (("train", self.rows), ("test", self.held_out)):
            table = pd.read_csv(Path(self.folder) / f"{part}.csv", dtype=str).dropna()
            table = table.rename(columns={"mr": "prompt", "ref": "completion"}).sample(frac=1, random_state=repeat)
            table = table.drop_duplicates()[:count].reset_index(drop=True)
            found.append(table.assign(prompt=table["prompt"] + "\n"))
        return found[0], found[1]

    def study(self, repeat: int, output: str) -> StudySpec:
        """LoRA alone, of which a search has the whole space but for epochs and rows of a batch."""
        names = dict(zip(("train", "test"), self.tables(repeat), strict=True))
        Path(output).mkdir(parents=True, exist_ok=True)
        for name, table in names.items():
            table.to_json(Path(output) / f"{name}.jsonl", orient="records", lines=True)
        fixed = {"r": self.r, "lora_alpha": self.lora_alpha, "target_modules": self.targets}
        fixed |= {"learning_rate": self.learning_rate, "warmup_ratio": 0.0, "weight_decay": 0.0}
        common = {"epochs": self.epochs, "batch_size": self.batch}
        content = {
            "name": "vs-sft",
            "seed": repeat,
            "output": f"{output}/study",
            "model": {"name_or_path": self.model, "max_length": self.max_length},
            "task": {"kind": "causal-lm", "written_rows": 0},
            "data": {name: f"{output}/{name}.jsonl" for name in names},
            "search": {
                "methods": ["lora"],
                "trials": max(1, self.search),
                "lora": {} if self.search else fixed,
                **common,
            },
            "validation": {"folds": 5, "packing": "off"},
        }
        return StudySpec.from_mapping(content)


@torch.inference_mode()
def token_losses(model: Any, data: Encoded, rows: np.ndarray) -> np.ndarray:
    """The sum of the losses of each row's tokens that are taught, and how many there are, `[rows, 2]`.

    Of the backbone's states and the head, so that neither side's own loss has a part in it.
    """
    model.eval()
    base, found = model.get_base_model(), np.zeros((len(rows), 2))
    for places in np.array_split(np.argsort(data.lengths[rows], kind="stable"), -(-len(rows) // CHUNK)):
        batch = data.batch(rows[places], base.device)
        hidden = base.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
        there = batch["labels"] >= 0
        states = hidden[there.nonzero()[:, 0], batch["answer_at"][there]]
        logits = base.get_output_embeddings()(states).float()
        losses = torch.nn.functional.cross_entropy(logits, batch["labels"][there], reduction="none")
        sums = torch.zeros(there.shape, device=losses.device).masked_scatter(there, losses).sum(1)
        found[places] = torch.stack([sums, there.sum(1).float()], 1).cpu().numpy()
    return found


def mean_loss(told: np.ndarray) -> float:
    """Of a token."""
    return float(told[..., 0].sum() / told[..., 1].sum())


def encoded(problem: Problem, table: pd.DataFrame) -> Encoded:
    """The tokens of prompts and completions."""
    read = {column.key: table[column.key].map(column.read) for column in problem.task.columns}
    return problem.task.encode(pd.DataFrame(read), problem.reader, ())


class Clock:
    """Seconds on the wall and of the processors, which a busy machine tells apart."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Since it was made."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter(), time.process_time()
        return {
            name: round(end - start, 3)
            for name, start, end in zip(("seconds", "processor_seconds"), self._started, now, strict=True)
        }


def learn(problem: Problem, data: Encoded, repeat: int) -> tuple[Any, dict[str, float], int]:
    """Our loop: the model, the seconds it trained and its steps."""
    from autopeft.common.seeds import derive_seed
    from autopeft.training.learner import Learner, train_epoch

    candidate = problem.space["lora"].default()
    model = attach(problem.base, candidate.method, candidate.params, seed=repeat).to(problem.device.type)
    clock = Clock()
    learner = Learner(model, candidate.hyper, len(data))
    for epoch in range(candidate.hyper.epochs):
        seed = derive_seed(repeat, epoch)
        train_epoch(learner, data, [data.everything], problem.task, problem.device, [seed], seed)
    return model, clock.read(), learner.steps


def trainer(form: str, setup: Setup, problem: Problem, candidate: Candidate, table: pd.DataFrame, folder: str) -> Any:
    """`SFTTrainer` in one of its forms on prompts and completions.

    Raises:
        SystemExit: what it learns is not what we do.
    """
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from transformers import AutoTokenizer, PrinterCallback, logging
    from trl import SFTConfig, SFTTrainer

    disable_progress_bar()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    kind, hyper, data = problem.device.type, candidate.hyper, encoded(problem, table)
    lower = supports_bfloat16(kind)
    options: dict[str, Any] = {
        "max_length": setup.max_length,
        "per_device_train_batch_size": hyper.batch_size,
        "num_train_epochs": hyper.epochs,
        "learning_rate": hyper.learning_rate,
        "warmup_steps": hyper.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": hyper.weight_decay,
        "seed": problem.spec.seed,
        "bf16": lower,
        "use_cpu": kind == "cpu",
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if form != "default":
        options |= {"logging_strategy": "no", "dataloader_pin_memory": kind != "cpu"}
        options |= {"model_init_kwargs": {"dtype": "bfloat16"}} if lower else {}
    if form == "grouped":
        options["train_sampling_strategy"] = "group_by_length"
    if form == "packed":
        length = max(setup.max_length, math.ceil(hyper.batch_size * data.lengths.mean()))
        options |= {"packing": True, "max_length": length, "per_device_train_batch_size": 1}
    made = SFTTrainer(
        model=setup.model,
        args=SFTConfig(folder, **options),
        processing_class=AutoTokenizer.from_pretrained(setup.model),  # ours reads marks in texts as text
        train_dataset=Dataset.from_pandas(table[["prompt", "completion"]], preserve_index=False),
        peft_config=attach(problem.base, candidate.method, candidate.params, meta=True).peft_config["default"],
    )
    made.remove_callback(PrinterCallback)
    theirs, own = (sum(label != -100 for row in made.train_dataset["labels"] for label in row), data.units.sum())
    if theirs != own:
        raise SystemExit(f"both sides must learn from the same tokens, but {form} has {theirs}, ours {own}.")
    return made
