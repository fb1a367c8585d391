"""The rows of a training step as tensors, and how an epoch is cut into such batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from autopeft.data.encoded import Encoded


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model in one pass: those of one fold, or those of each fold in turn.

    Attributes:
        tensors: by name, `[folds · room, …]`; a fold with fewer rows than the largest repeats some.
        sizes: rows of each fold.
        weight: what the mean loss of its rows is divided by, with one fold only; 0: the number of rows.
        places: of all rows, padding included; the cost of a pass grows with them.
    """

    tensors: Mapping[str, torch.Tensor]
    sizes: tuple[int, ...]
    weight: int = 0
    places: int = 0

    @classmethod
    def of(cls, data: Encoded, rows: Sequence[np.ndarray], device: str) -> Batch:
        """Make a batch of each fold's `rows`."""
        room = max(map(len, rows))
        filled = [np.resize(few if len(few) else 0, room) for few in rows]
        together = np.concatenate(filled)
        weight = data.weight(rows[0]) if len(rows) == 1 else 0
        return cls(data.batch(together, device), tuple(map(len, rows)), weight, data.places_of(together))

    def of_fold(self, fold: int) -> Batch:
        """The rows of one fold alone, padded as they are here."""
        part = fold_slices(self.sizes)[fold]
        return Batch({name: tensor[part] for name, tensor in self.tensors.items()}, (self.sizes[fold],))

    def keeping(self, fold: int) -> Batch:
        """The same batch with this fold's rows kept, and other rows than before in all other places.

        The other folds' places get copies of its rows, and its own padding gets the next fold's rows.
        """
        room, folds = max(self.sizes), len(self.sizes)
        own = np.tile(np.arange(room) + fold * room, folds)
        spare = np.arange(self.sizes[fold], room)
        own[fold * room + spare] = (fold + 1) % folds * room + spare
        return Batch({name: tensor[own] for name, tensor in self.tensors.items()}, self.sizes)

    def per_fold(self, outputs: Any) -> Iterator[tuple[Any, dict[str, torch.Tensor]]]:
        """Each fold's outputs and tensors."""
        if len(self.sizes) == 1:
            yield outputs, dict(self.tensors)
            return
        found = {  # one node of the graph for all folds, not one for each
            name: torch.split(value, max(self.sizes))
            for name, value in outputs.items()
            if isinstance(value, torch.Tensor) and value.ndim
        }
        for index, (size, part) in enumerate(zip(self.sizes, fold_slices(self.sizes), strict=True)):
            own = {name: parts[index][:size] for name, parts in found.items()}
            yield type(outputs)(**own), {name: tensor[part] for name, tensor in self.tensors.items()}


def fold_slices(sizes: Sequence[int]) -> list[slice]:
    """Where each fold's rows are in a batch; every fold has the room of the largest, and fills it from the left."""
    room = max(sizes)
    return [slice(index * room, index * room + size) for index, size in enumerate(sizes)]


def rows_of(outputs: Any, part: slice) -> Any:
    """The model outputs of the rows in `part` alone."""
    kept = {name: value[part] for name, value in outputs.items() if isinstance(value, torch.Tensor) and value.ndim}
    return type(outputs)(**kept)


def bucketed(lengths: np.ndarray, batches: int, seed: int, order: int, pool: int = 50) -> list[np.ndarray]:
    """Batches of rows of similar length: less padding, and still a shuffle.

    Rows are shuffled by `seed` and dealt into pools of about `pool` batches; each pool is sorted by length and cut into
    its batches; then the batches are shuffled by `order`. Schedules with the same number of batches and the same
    `order` have short and long batches at the same places.

    Returns:
        `batches` int64 arrays of positions into `lengths`, with sizes at most one apart; each position comes once.
    """
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    shares = np.array_split(shuffled, batches)  # only their sizes count; which rows share a batch is decided below
    found: list[np.ndarray] = []
    for start in range(0, batches, pool):
        members = np.concatenate(shares[start : start + pool])
        members = members[np.argsort(lengths[members], kind="stable")]
        found += np.array_split(members, len(shares[start : start + pool]))
    return [found[position] for position in np.random.default_rng(order).permutation(batches)]
