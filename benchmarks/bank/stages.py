"""What is recorded, in order of worth: each stage a list of cells, which have runs of all folds each.

Stage 2's and 3's configurations are fixed: chosen by what was found on the same tasks before, they would look better
than they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from drawing import FOLDS, rows_of
from sources import SIZES, TASKS, TEST_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pool import Config, Pool

LENGTHS = {"small": 24, "medium": 12, "large": 4}
"""Epochs of a run: 168, 300 and 376 steps in batches of 16."""

SHORTER = {"small": (2, 4, 8, 16, 24), "medium": (1, 2, 4, 8, 12)}
"""Lengths of linear runs that are compared with one run which is cut."""

LONG_STEPS = 1024
PROBED = ("tweets", "banking", "banking_20", "movies")
"""Tasks of three groups, on which more is recorded than on the others."""

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
    precision: str = "float32"
    refit: bool = False

    @property
    def name(self) -> str:
        """Of its part, and with the fold behind it of its runs."""
        said = (self.task, self.size, self.config.name, f"s{self.split_seed}", str(self.seed), self.precision)
        return ".".join((*said, self.schedule, f"{self.epochs}e", *(["refit"] if self.refit else [])))

    @property
    def cost(self) -> float:
        """Roughly, in rows that are trained on: all folds' training, and what is evaluated three times."""
        rows = rows_of(self.size)
        if self.refit:
            return rows * self.epochs + EVALUATED * 3 * TEST_ROWS
        cooled = 1.2 if self.schedule == WSD else 1.0
        validated = 7 * rows + 3 * FOLDS * TEST_ROWS
        return FOLDS * SIZES[self.size] * self.epochs * cooled + EVALUATED * validated


def cells(stage: int, pool: Pool, tasks: Sequence[str], schedule: str = LINEAR) -> list[Cell]:
    """The cells of a stage for those tasks, each once, what matters most first."""
    found = STAGES[stage](pool, tasks, schedule)
    return [*{cell.name: cell for cell in found if cell.size in TASKS[cell.task].sizes}.values()]


def _block(pool: Pool, blocks: Iterable[str], tasks: Sequence[str], size: str, schedule: str) -> Iterable[Cell]:
    """Block by block, so that what is there is of all tasks whenever it ends."""
    for block in blocks:
        for task in tasks:
            for config in pool[block]:
                yield Cell(task, size, config, LENGTHS[size], schedule)


def _small(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    return _block(pool, ("defaults", "lower", "wide"), tasks, "small", schedule)


def _medium(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    return _block(pool, ("defaults", "lower"), tasks, "medium", schedule)


def _large(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    strong = [config for config in pool["defaults"] if config.method in ("adapter", "bitfit", "lora", "mixed",
                                                                         "prefix_tuning")]  # fmt: skip
    return _block({"large": [*strong, *pool["lower"][:3]]}, ["large"], tasks, "large", schedule)


def _schedules(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    """Linear runs of several lengths; with `wsd`, the one run that is cut in their place."""
    third = pool["lower"][: len(pool["lower"]) // 2]
    chosen = [*(config for config in pool["defaults"] if config.method in {c.method for c in third}), *third]
    for size, lengths in SHORTER.items():
        for task in (name for name in PROBED if name in tasks):
            for config in chosen:
                if schedule == WSD:
                    yield Cell(task, size, config, LENGTHS[size], WSD)
                else:
                    yield from (Cell(task, size, config, epochs) for epochs in lengths)


def _splits(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    """Fresh folds of the same rows; first of the probed tasks."""
    chosen = [*pool["defaults"], *pool["lower"][:3], *pool["wide"][:1]]
    for some in ([name for name in tasks if name in PROBED], [name for name in tasks if name not in PROBED]):
        for split in (1, 2):
            for size in ("small", "medium"):
                for task in some:
                    for config in chosen:
                        yield Cell(task, size, config, LENGTHS[size], schedule, split_seed=split, seed=split)


def _more(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    yield from _block(pool, ("near_more", "wide_more"), tasks, "small", schedule)
    for task in tasks:
        for config in pool["small_batch"]:
            steps = -(-SIZES["small"] // int(config.params["batch_size"]))  # of an epoch
            yield Cell(task, "small", config, -(-LONG_STEPS // steps), schedule)


def _refits(pool: Pool, tasks: Sequence[str], schedule: str) -> Iterable[Cell]:
    """On all rows, for as many epochs and for as many steps as the folds; then defaults in bfloat16."""
    chosen = [config for config in pool["defaults"] if config.method in ("adapter", "bitfit", "lora", "prefix_tuning")]
    for size in ("small", "medium"):
        for task in tasks:
            for config in chosen:
                for epochs in (LENGTHS[size], LENGTHS[size] * (FOLDS - 1) // FOLDS):
                    yield Cell(task, size, config, epochs, schedule, refit=True)
    for task in tasks:
        for config in pool["defaults"]:
            yield Cell(task, "small", config, LENGTHS["small"], schedule, precision="bfloat16")


STAGES: dict[int, Callable[[Pool, Sequence[str], str], Iterable[Cell]]] = {
    1: _small,
    2: _medium,
    3: _large,
    4: _schedules,
    5: _splits,
    6: _more,
    7: _refits,
}
