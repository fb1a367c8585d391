"""What is recorded, in order of worth: each stage a list of cells, which have runs of all folds each.

Stage 2's and 3's configurations are fixed: chosen by what was found on the same tasks before, they would look better
than they are.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from drawing import FOLDS, rows_of
from sources import SIZES, TASKS, TEST_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pool import Config, Pool

LENGTHS = {"small": (4, 12, 24, 48), "medium": (4, 12, 24), "large": (4,)}
"""Epochs of a run whose rate falls linearly, each a run of its own: in batches of 16 up to 336, 600 and 376 steps."""

USUAL = {"small": 24, "medium": 12, "large": 4}
"""Epochs where one length is recorded, as of fresh splits and refits. At a constant rate this run alone is made, and
cut to the shorter ones."""

FIRST = ("adapter", "lora", "prefix_tuning")
SECOND = ("bitfit", "mixed")
"""Methods whose defaults are recorded first: those that most of the pool is of, and the next best."""

LONG_STEPS = 1024
PROBED = ("tweets", "banking", "banking_20", "movies")
"""Tasks of three groups, on which more is recorded than on the others."""

FLOAT32, BFLOAT16, OTHER = "float32", "bfloat16", "other"
"""Precisions; the other one is what the stage is not recorded in."""

LINEAR, WSD = "linear", "wsd"
"""Schedules: a linear fall, or a constant rate with points of averaged weights, and of weights cooled down."""

EVALUATED = 1 / 3
"""What evaluating a row costs, in rows that are trained on."""


@dataclass(frozen=True)
class Cell:
    """The runs of one configuration on one task that are trained together.

    Attributes:
        refit: all rows train one model, and there are no folds.
    """

    task: str
    size: str
    config: Config
    epochs: int
    schedule: str = LINEAR
    split_seed: int = 0
    seed: int = 0
    precision: str = FLOAT32
    refit: bool = False

    @property
    def name(self) -> str:
        """Of its part, and with the fold behind it of its runs."""
        said = (self.task, self.size, self.config.name, f"s{self.split_seed}", str(self.seed), self.precision)
        return ".".join((*said, self.schedule, f"{self.epochs}e", *(["refit"] if self.refit else [])))

    @property
    def cost(self) -> float:
        """Roughly, in rows that are trained on: all folds' training, and what is evaluated."""
        rows = rows_of(self.size)
        if self.refit:
            return rows * self.epochs + EVALUATED * TEST_ROWS
        cooled, tested = (1.3, 5) if self.schedule == WSD else (1.0, 1)
        validated = 6 * rows + tested * FOLDS * TEST_ROWS
        return FOLDS * SIZES[self.size] * self.epochs * cooled + EVALUATED * validated


def cells(stage: int, pool: Pool, tasks: Sequence[str], schedule: str = LINEAR, precision: str = FLOAT32) -> list[Cell]:
    """The cells of a stage for those tasks, each once, what matters most first."""
    other = BFLOAT16 if precision == FLOAT32 else FLOAT32
    found = (
        replace(cell, precision=other if cell.precision == OTHER else precision)
        for cell in STAGES[stage](pool, tasks, schedule)
        if cell.size in TASKS[cell.task].sizes
    )
    return [*{cell.name: cell for cell in found}.values()]


def _lengths(size: str, schedule: str) -> tuple[int, ...]:
    return LENGTHS[size] if schedule == LINEAR else (USUAL[size],)


def _block(blocks: Iterable[Sequence[Config]], tasks: Sequence[str], size: str, schedule: str) -> Iterable[Cell]:
    """Block by block and length by length, so that what is there is of all tasks whenever it ends."""
    for block, epochs in itertools.product(blocks, _lengths(size, schedule)):
        for task, config in itertools.product(tasks, block):
            yield Cell(task, size, config, epochs, schedule)


def _ordered(pool: Pool) -> list[list[Config]]:
    """The defaults and the lower rates, those of most worth first."""
    first, second, rest = ([config for config in pool["defaults"] if wanted(config.method)] for wanted in (
        lambda name: name in FIRST, lambda name: name in SECOND, lambda name: name not in (*FIRST, *SECOND)
    ))  # fmt: skip
    thirds, tenths = pool["lower"][: len(FIRST)], pool["lower"][len(FIRST) :]
    return [[*first, *thirds], [*tenths, *second], rest]


def _small(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    return _block([*_ordered(pool), pool["wide"]], tasks, "small", schedule)


def _medium(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    return _block(_ordered(pool), tasks, "medium", schedule)


def _large(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    strong = [config for config in pool["defaults"] if config.method in (*FIRST, *SECOND)]
    return _block([[*strong, *pool["lower"][: len(FIRST)]]], tasks, "large", schedule)


def _schedules(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    """A run at a constant rate that is cut, whatever `schedule` says; the linear ones are of the stages before."""
    first = [config for config in pool["defaults"] if config.method in FIRST]
    for size in ("small", "medium"):
        yield from _block([[*first, *pool["lower"][: len(FIRST)]]], [n for n in tasks if n in PROBED], size, WSD)


def _splits(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    """Fresh folds of the same rows; first of the probed tasks."""
    chosen = [*pool["defaults"], *pool["lower"][:3], *pool["wide"][:1]]
    for some in ([name for name in tasks if name in PROBED], [name for name in tasks if name not in PROBED]):
        for split in (1, 2):
            for size in ("small", "medium"):
                for task in some:
                    for config in chosen:
                        yield Cell(task, size, config, USUAL[size], schedule, split_seed=split, seed=split)


def _more(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    yield from _block([pool["near_more"], pool["wide_more"]], tasks, "small", schedule)
    for task in tasks:
        for config in pool["small_batch"]:
            steps = -(-SIZES["small"] // int(config.params["batch_size"]))  # of an epoch
            yield Cell(task, "small", config, -(-LONG_STEPS // steps), schedule)


def _refits(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    """On all rows, for as many epochs and for as many steps as the folds; then defaults in the other precision."""
    chosen = [config for config in pool["defaults"] if config.method in ("adapter", "bitfit", "lora", "prefix_tuning")]
    for size in ("small", "medium"):
        for task in tasks:
            for config in chosen:
                for epochs in (USUAL[size], USUAL[size] * (FOLDS - 1) // FOLDS):
                    yield Cell(task, size, config, epochs, schedule, refit=True)
    for task in tasks:
        for config in pool["defaults"]:
            yield Cell(task, "small", config, USUAL["small"], schedule, precision=OTHER)


STAGES: dict[int, Callable[[Pool, Sequence[str], str], Iterable[Cell]]] = {
    1: _small,
    2: _medium,
    3: _large,
    4: _schedules,
    5: _splits,
    6: _more,
    7: _refits,
}
