"""The rows of several tasks under one numbering, from which batches of a single task's rows are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from autopeft.data.encoded import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from autopeft.common.truncation import Truncation

Value = TypeVar("Value")

SIGN = "/"
"""Between the name of a task and that of its tensor in a batch."""


@dataclass(frozen=True)
class RowsOfTasks(Encoded):
    """The samples of all tasks, those of the first task first. `truths` are the numbers of the rows.

    A batch has rows of one task, and its tensors are called `<task>/<tensor>`.

    Attributes:
        parts: the rows of each task, by its name.
    """

    parts: Mapping[str, Encoded] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Mapping[str, Encoded]) -> RowsOfTasks:
        """The rows of these tasks."""
        return cls({}, np.arange(sum(len(part.truths) for part in parts.values())), parts=dict(parts))

    def __len__(self) -> int:
        """Samples."""
        return sum(map(len, self.parts.values()))

    @cached_property
    def starts(self) -> dict[str, int]:
        """The number of each task's first sample."""
        return _starts({name: len(part) for name, part in self.parts.items()})

    @cached_property
    def row_starts(self) -> dict[str, int]:
        """The number of each task's first row."""
        return _starts({name: len(part.truths) for name, part in self.parts.items()})

    def split(self, samples: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """For each task with some of the `samples`: its name, their places in `samples`, and their own numbers."""
        for name, part in self.parts.items():
            start = self.starts[name]
            places = np.flatnonzero((samples >= start) & (samples < start + len(part)))
            if len(places):
                yield name, places, samples[places] - start

    def split_rows(self, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """The same for numbers of rows."""
        for name, part in self.parts.items():
            start = self.row_starts[name]
            places = np.flatnonzero((rows >= start) & (rows < start + len(part.truths)))
            if len(places):
                yield name, places, rows[places] - start

    def joined(self, samples: Mapping[str, np.ndarray]) -> np.ndarray:
        """The numbers here of samples of the tasks, in the order of the tasks."""
        found = [self.starts[name] + samples[name] for name in self.parts if name in samples]
        return np.concatenate(found) if found else np.arange(0)

    def samples_of(self, rows: np.ndarray) -> np.ndarray:
        """Positions of the samples of those rows, in the order of the tasks."""
        return self.joined({name: self.parts[name].samples_of(own) for name, _, own in self.split_rows(rows)})

    def rows_of(self, samples: np.ndarray) -> np.ndarray:
        """The rows of those samples, each once, in the order of the tasks."""
        found = [self.row_starts[name] + self.parts[name].rows_of(own) for name, _, own in self.split(samples)]
        return np.concatenate(found) if found else np.arange(0)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of places of each sample, int64 `[samples]`."""
        return np.concatenate([part.lengths for part in self.parts.values()])

    @cached_property
    def extents(self) -> np.ndarray:
        """Total number of places of each sample, int64 `[samples]`."""
        return np.concatenate([part.extents for part in self.parts.values()])

    @property
    def longest_first(self) -> np.ndarray:
        """The samples of the task with the largest batches, the longest first."""
        samples = self.joined({self.largest_task: self.parts[self.largest_task].everything})
        found: np.ndarray = samples[self.extents[samples].argsort()[::-1]]
        return found

    @cached_property
    def largest_task(self) -> str:
        """The task whose longest sample has the most places."""
        return max(self.parts, key=lambda name: self.parts[name].places_of([int(self.parts[name].extents.argmax())]))

    def places_of(self, samples: Sequence[int] | np.ndarray) -> int:
        """Number of places in a pass of those samples, as if all belonged to the largest of their tasks."""
        own = [(self.parts[name].places_of(some), len(some)) for name, _, some in self.split(np.asarray(samples))]
        return max(-(-places // count) for places, count in own) * len(samples)

    @property
    def truncated(self) -> Truncation:
        """What truncation cut off, of all tasks together."""
        first, *others = (part.truncated for part in self.parts.values())
        for other in others:
            first = first + other
        return first

    def weight(self, rows: Sequence[int] | np.ndarray) -> int:
        """The number of things that the loss of the given samples is a mean over."""
        return sum(self.parts[name].weight(own) for name, _, own in self.split(np.asarray(rows)))

    def batch(self, rows: Sequence[int] | np.ndarray, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """Tensors of the given samples, which must be of one task."""
        ((name, _, own),) = self.split(np.asarray(rows))
        return _named(name, self.parts[name].batch(own, device))

    def largest(self, rows: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each tensor of the largest possible batch of this many rows."""
        return _named(self.largest_task, self.parts[self.largest_task].largest(rows))


def _named(task: str, tensors: Mapping[str, Value]) -> dict[str, Value]:
    return {f"{task}{SIGN}{name}": tensor for name, tensor in tensors.items()}


def task_of(batch: Mapping[str, Value]) -> tuple[str, dict[str, Value]]:
    """The task that a batch belongs to, and its tensors by the names that the task knows."""
    task = next(iter(batch)).partition(SIGN)[0]
    return task, {name.removeprefix(task + SIGN): tensor for name, tensor in batch.items()}


def _starts(counts: Mapping[str, int]) -> dict[str, int]:
    found, start = {}, 0
    for name, count in counts.items():
        found[name], start = start, start + count
    return found
