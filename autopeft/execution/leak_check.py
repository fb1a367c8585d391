"""What trials leave behind in memory when they have ended."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import torch

from autopeft.common.collector import settled

if TYPE_CHECKING:
    from types import TracebackType

LEAST = 2**20
"""Bytes from which tensors that outlive a trial count as held back; of trained parameters any do."""


class LeakCheck:
    """Finds the tensors that are still there when a trial has ended. Use as a context manager, around all trials.

    What was there before is left alone by Python's garbage collector inside: the collection after each trial, and the
    look at what remains, then pass over what trials made and not over all that libraries keep.
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
        """Bytes of tensors that came since this was last asked and stay; 0 where they are too few to matter."""
        gc.collect()
        before, self._before = self._before, _alive()
        more, trained = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0, more) if more >= LEAST or trained > 0 else 0


def _alive() -> tuple[int, int]:
    """Bytes of all tensors that the garbage collector follows, and the bytes of those with gradients to come."""
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
