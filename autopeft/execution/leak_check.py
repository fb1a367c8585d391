"""What trials leave in memory after their end."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import torch

from autopeft.common.collector import settled

if TYPE_CHECKING:
    from types import TracebackType

LEAST = 2**20
"""Bytes from which tensors that outlive a trial count as a leak; of trained parameters, any do."""


class LeakCheck:
    """Finds tensors that outlive their trial. Use as a context manager, around all trials.

    Inside, Python's garbage collector ignores all objects from before. So the collection after each trial, and the
    search for what remains, look only at what trials made and not at everything that libraries keep.
    """

    def __init__(self) -> None:
        self._before = 0, 0
        self._settled = settled()

    def __enter__(self) -> Self:
        self._settled.__enter__()
        self._before = _alive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settled.__exit__(kind, error, trace)

    def since(self) -> int:
        """Bytes of tensors that were made since the last call and are still there; 0 if they are too few to matter."""
        gc.collect()
        before, self._before = self._before, _alive()
        more, trained = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0, more) if more >= LEAST or trained > 0 else 0


def _alive() -> tuple[int, int]:
    """Bytes of all tensors that the garbage collector tracks, and bytes of the trainable ones."""
    storages: dict[int, int] = {}
    trained = 0
    for found in gc.get_objects():
        if not issubclass(type(found), torch.Tensor):
            continue
        with suppress(RuntimeError, NotImplementedError):  # some kinds have no storage
            storage = found.untyped_storage()
            if storage.device.type != "meta":
                storages[storage.data_ptr()] = storage.nbytes()
                trained += found.nbytes if found.is_leaf and found.requires_grad else 0
    return sum(storages.values()), trained
