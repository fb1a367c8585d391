"""What each acceleration of the memory prediction brings: CPU time without it against with it, the others on.

    python benchmarks/memory_accelerations.py                     # 60 candidates on three models, half an hour
    python benchmarks/memory_accelerations.py --study             # 60 proposals of a study under a limit, on MiniLM
    python benchmarks/memory_accelerations.py --study --family BERT

The first asks about the candidates of `memory_prediction.py`: of every method in turn, evenly drawn, each predicted
once. The second asks about what the study's sampler proposes under a limit on memory that half of the space exceeds
(`refusals.py`): there some are refused, and others are predicted in several ways until one fits.

Every variant is asked about a candidate before the next candidate's turn comes, in another order each time, and has an
estimator, a base model and a cache of PyTorch's fake mode of its own. The answers are compared: the refusal, and where
it was predicted the peak and how a batch runs.
"""

from __future__ import annotations

import argparse
import functools
import gc
import statistics
import time
from collections import Counter, defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from memory_prediction import FAMILIES, TASK, candidates
from refusals import World, proposals
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForSequenceClassification, logging

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.limits import Budget
from autopeft.budget.memory import fake_ops, live_bytes, peak
from autopeft.models.architecture import describe
from autopeft.models.base import BaseModel
from autopeft.models.device import Device
from autopeft.testing.tiny import blank_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memory_prediction import Family

    from autopeft.methods.candidate import Candidate

ON = "all on"
OFF: dict[str, tuple[tuple[Any, dict[str, Any]], ...]] = {
    ON: (),
    "fake_ops": (
        (live_bytes, {"VIEWS": frozenset()}),
        (fake_ops, {"SHAPES": {}, "UPDATES": frozenset()}),
    ),
    "repeated_layers": ((peak, {"predict": functools.partial(peak.predict, whole=True)}),),
}
"""What is put in whose place for each to be off."""


class Answer(NamedTuple):
    """What an estimator says of a candidate: why it is refused, and what was predicted, None where nothing was."""

    refused: bool
    predicted: tuple[int, object] | None

    def contradicts(self, other: Answer) -> bool:
        """Whether not both can be true."""
        both = self.predicted and other.predicted
        return self.refused != other.refused or bool(both and self.predicted != other.predicted)


class Variant:
    """An estimator as a study has it, with one acceleration off or none."""

    def __init__(self, off: str, base: BaseModel, length: int, limit: int | None) -> None:
        self._off, self._budget, self._cache = OFF[off], Budget(max_gpu_memory=limit), dict[Any, Any]()
        own = BaseModel(base.module, None, base.spec)
        self._estimator = CostEstimator(own, TASK, Device("cpu", None), blank_rows(np.full(1000, length)), limit)

    def ask(self, candidate: Candidate) -> tuple[float, Answer]:
        """CPU seconds, and the answer."""
        gc.collect()
        with self._without():
            started = time.process_time()
            usage = self._estimator(candidate)
            refused = bool(self._budget.reason(usage))
            if not refused:
                _ = usage.weights, usage.memory
            seconds = time.process_time() - started
        return seconds, Answer(refused, (usage.memory.peak, usage.execution) if usage.memory_known else None)

    @contextmanager
    def _without(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(patch.object(FakeTensorMode, "cache", self._cache))
            for owner, attributes in self._off:
                stack.enter_context(patch.multiple(owner, **attributes))
            yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", action="store_true", help="proposals of a study under a limit")
    parser.add_argument("--family", default="", help="only base models whose name begins so; of a study MiniLM")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the study")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    chosen = [family for family in FAMILIES if family.name.startswith(arguments.family)]
    seconds: dict[str, list[dict[str, float]]] = {}
    for family in chosen[:1] if arguments.study else chosen:
        asked = study(family, arguments.seed) if arguments.study else drawn(family)
        seconds[family.name] = [compare(*asked, repeat) for repeat in range(arguments.repeats)]
        report(family.name, seconds[family.name])
    if len(seconds) > 1:
        together = zip(*seconds.values(), strict=True)
        report("together", [{off: sum(part[off] for part in parts) for off in OFF} for parts in together])


def drawn(family: Family) -> tuple[BaseModel, list[Candidate], int, None]:
    """The candidates of `memory_prediction.py --speed`, the rows' length, and no limit."""
    base = meta_base(family)
    rows, length = family.batches[1]
    found = [replace(c, hyper=replace(c.hyper, batch_size=rows)) for c in candidates(base, family)]
    return base, found, length, None


def study(family: Family, seed: int) -> tuple[BaseModel, list[Candidate], int, int]:
    """What a study proposes under a limit on memory that half of the space exceeds."""
    base = meta_base(family)
    world = World("max_gpu_memory", base=base)
    proposed = proposals(world, seed, "told", 60)
    print(f"{family.name}: {sum(refused for _, refused in proposed)} of {len(proposed)} refused", flush=True)
    return base, [candidate for candidate, _ in proposed], world.LENGTH, world.budget.max_gpu_memory


def meta_base(family: Family) -> BaseModel:
    """The base model without weights, on which nothing that is counted here hangs."""
    config = family.config()
    config.num_labels = 3
    with torch.device("meta"):
        module = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).requires_grad_(False)
    return BaseModel(module, None, describe(module, TASK.kind, TASK.peft_task_type))


def compare(
    base: BaseModel, asked: Sequence[Candidate], length: int, limit: int | None, repeat: int
) -> dict[str, float]:
    """CPU seconds of every variant over all candidates; says how many answers contradict those with all on."""
    for off in OFF:  # what is imported and compiled at first use is nobody's time
        Variant(off, base, length, limit).ask(asked[0])
    gc.freeze()
    variants = {off: Variant(off, base, length, limit) for off in OFF}
    seconds: dict[str, float] = defaultdict(float)
    contrary, unpredicted = Counter[str](), Counter[str]()
    for number, candidate in enumerate(asked):
        turn = (number + repeat) % len(OFF)
        answers = {}
        for off in (*list(OFF)[turn:], *list(OFF)[:turn]):
            taken, answers[off] = variants[off].ask(candidate)
            seconds[off] += taken
        contrary.update(off for off, answer in answers.items() if answer.contradicts(answers[ON]))
        unpredicted.update(off for off, answer in answers.items() if answer.predicted is None)
    gc.unfreeze()
    print(f"  contrary answers: {dict(contrary) or 0}; refused unpredicted: {dict(unpredicted) or 0}", flush=True)
    return dict(seconds)


def report(name: str, runs: Sequence[dict[str, float]]) -> None:
    """A table: for each acceleration the time without it over the time with it, median and range of the runs."""
    print(f"{name}: {statistics.median(run[ON] for run in runs):.1f} s with all on, {len(runs)} runs")
    for off in OFF:
        if off != ON:
            ratios = [run[off] / run[ON] for run in runs]
            print(f"| {off} | {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |", flush=True)


if __name__ == "__main__":
    main()
