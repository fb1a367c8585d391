"""Which rows each batch of an epoch has; of several tasks, each batch has rows of one, drawn at a temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from autopeft.data.rows_of_tasks import RowsOfTasks
from autopeft.tasks.several import SeveralTasks
from autopeft.training.batch import bucketed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.data.encoded import Encoded
    from autopeft.tasks.contract import Task


def scheduled(task: Task, data: Encoded, rows: np.ndarray, batches: int, seed: int, order: int) -> list[np.ndarray]:
    """The batches of an epoch, as positions in `rows`; see `bucketed`.

    Of several tasks, an epoch has as many rows as `rows`, whatever the temperature: of a task that is drawn less often
    than its share some are left out, others in each epoch, and those of a task that is drawn more often come again.

    Args:
        task: what is learnt.
        data: the rows of the study.
        rows: those of a fold.
        batches: number of batches.
        seed: of the rows of each batch.
        order: of the order of the batches.
    """
    if not isinstance(data, RowsOfTasks):
        return bucketed(data.extents[rows], batches, seed, order)
    assert isinstance(task, SeveralTasks)
    places = {name: own for name, own, _ in data.split(rows)}
    sizes = {name: len(part) for name, part in data.parts.items() if name in places}
    counts = shares(sizes, batches, task.temperature, order)
    size, generator = -(-len(rows) // batches), np.random.default_rng(seed)
    found: list[np.ndarray] = []
    for name, own in places.items():
        wanted = counts[name] * size
        rounds = [generator.permutation(own) for _ in range(-(-wanted // len(own)))]
        drawn = np.concatenate(rounds)[:wanted] if rounds else own[:0]
        if counts[name]:
            found += [drawn[few] for few in bucketed(data.extents[rows[drawn]], counts[name], seed, order)]
    return [found[position] for position in np.random.default_rng(order).permutation(batches)]


def shares(sizes: Mapping[str, int], batches: int, temperature: float, seed: int) -> dict[str, int]:
    """How many of the batches each task gets: in proportion to n^(1 / temperature), and at least one.

    Where there are fewer batches than tasks, the tasks that get one are drawn with these proportions.

    Args:
        sizes: number of rows of each task.
        batches: in all.
        temperature: from 1, for shares in proportion to the rows.
        seed: of the draw.
    """
    weights = np.array([size ** (1 / temperature) for size in sizes.values()])
    weights /= weights.sum()
    if batches < len(sizes):
        drawn = np.random.default_rng(seed).choice(len(sizes), batches, replace=False, p=weights)
        return {name: int(place in drawn) for place, name in enumerate(sizes)}
    exact = weights * (batches - len(sizes))
    counts = np.floor(exact).astype(int)
    left = batches - len(sizes) - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    return {name: int(count) + 1 for name, count in zip(sizes, counts, strict=True)}
