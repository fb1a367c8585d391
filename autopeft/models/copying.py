"""Copies of a module's structure over the same tensors, made by one copier: ten times as fast as `copy.deepcopy`."""

from __future__ import annotations

import copy
import io
import pickle
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


class ModuleCopier:
    """A module to make copies of, which share its tensors.

    The structure is pickled once, in memory, without the tensors. What cannot be pickled is copied the slow way.

    Args:
        module: the copier's own from now on.
        own: ids of the parameters that each copy has to itself.
    """

    def __init__(self, module: nn.Module, own: AbstractSet[int]) -> None:
        self._tensors: list[torch.Tensor] = []
        self._module, self._own = module, own
        buffer = io.BytesIO()
        try:
            _Pickler(buffer, self._tensors).dump(module)
        except (pickle.PicklingError, AttributeError, TypeError):  # a local function, a weak reference, a lock, …
            self._pickled = None
        else:
            self._pickled = buffer.getvalue()

    def copy(self) -> nn.Module:
        """A copy."""
        if self._pickled is None:
            tensors = (*self._module.parameters(), *self._module.buffers())
            return copy.deepcopy(
                self._module, {id(tensor): tensor for tensor in tensors if id(tensor) not in self._own}
            )
        made: nn.Module = _Unpickler(io.BytesIO(self._pickled), self._tensors, self._own).load()
        return made


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, tensors: list[torch.Tensor]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._tensors = tensors

    def persistent_id(self, item: object) -> int | None:
        if not isinstance(item, torch.Tensor):
            return None
        self._tensors.append(item)
        return len(self._tensors) - 1


class _Unpickler(pickle.Unpickler):
    """Reads what this process has pickled itself."""

    def __init__(self, file: io.BytesIO, tensors: list[torch.Tensor], own: AbstractSet[int]) -> None:
        super().__init__(file)
        self._tensors, self._own = tensors, own
        self._made: dict[int, torch.Tensor] = {}

    def persistent_load(self, number: int) -> torch.Tensor:
        tensor = self._tensors[number]
        if id(tensor) not in self._own:
            return tensor
        if id(tensor) not in self._made:
            self._made[id(tensor)] = copy.deepcopy(tensor)
        return self._made[id(tensor)]
