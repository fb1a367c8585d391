"""Modules that treat the rows of several models differently: each row by the model that it is for.

The rows of a pass lie model by model, in the models' order, so a module finds its rows by their counts.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    Members = tuple[int, ...]


class Routing:
    """How many rows of the current pass are for each model."""

    def __init__(self, models: int) -> None:
        self._set([0] * models)

    def _set(self, counts: Sequence[int]) -> None:
        self.counts = list(counts)
        self._known: dict[tuple[str, Members], Any] = {}

    def begin(self, counts: Sequence[int]) -> None:
        """Begin a pass with this many rows for each model."""
        if self.counts != list(counts):
            self._set(counts)

    def rows(self, members: Members) -> int:
        """How many rows these models have together."""
        return sum(self.counts[member] for member in members)

    def pieces(self, members: Members) -> list[tuple[int, int]]:
        """The place among the members, and the rows, of each member that has any."""
        if ("pieces", members) not in self._known:
            found = [(place, self.counts[member]) for place, member in enumerate(members) if self.counts[member]]
            self._known["pieces", members] = found
        return self._known["pieces", members]  # type: ignore[no-any-return]  # of several kinds by key

    def places(self, members: Members, device: torch.device) -> torch.Tensor:
        """The place among the members of each row's model, int64 `[rows]`."""
        if ("places", members) not in self._known:
            places, counts = zip(*self.pieces(members), strict=True)
            found = torch.tensor(places).repeat_interleave(torch.tensor(counts))
            self._known["places", members] = found.to(device)
        return self._known["places", members]  # type: ignore[no-any-return]

    def part(self, members: Members, few: Members) -> slice | list[int]:
        """Where the rows of a few members are among those of all members."""
        key = "part", (*members, -1, *few)
        if key not in self._known:
            wanted, found, start = set(few), list[int](), 0
            for member in members:
                if member in wanted:
                    found += range(start, start + self.counts[member])
                start += self.counts[member]
            whole = bool(found) and found[-1] - found[0] + 1 == len(found)
            self._known[key] = slice(found[0], found[-1] + 1) if whole else found
        return self._known[key]  # type: ignore[no-any-return]


class Routed(nn.Module):
    """Runs one of several modules on each row.

    Args:
        routing: of the pass.
        groups: models, and the module for their rows.
    """

    def __init__(self, routing: Routing, groups: Sequence[tuple[Members, nn.Module]]) -> None:
        super().__init__()
        self._routing = routing
        self._groups = [members for members, _ in groups]
        self._members = tuple(sorted(member for members in self._groups for member in members))
        self.each = nn.ModuleList([module for _, module in groups])

    def __getattr__(self, name: str) -> Any:
        """What a model reads of the module that stood here, such as its `weight`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            each: Any = super().__getattr__("each")
            return getattr(each[0], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs for all rows; an input whose first dimension is not the rows is the same for each model."""
        routing, total = self._routing, self._routing.rows(self._members)
        active = [
            (members, module) for members, module in zip(self._groups, self.each, strict=True) if routing.rows(members)
        ]
        if len(active) == 1:
            return active[0][1](*args, **kwargs)
        leaves, shape = tree_flatten((args, kwargs))
        shared = not any(_has_rows(leaf, total) for leaf in leaves)
        parts, outputs = [], []
        for members, module in active:
            part, count = routing.part(self._members, members), routing.rows(members)
            own = [leaf[part] if _has_rows(leaf, total) else leaf for leaf in leaves]
            given, named = tree_unflatten(own, shape)
            output = module(*given, **named)
            outputs.append(tree_map_only(torch.Tensor, partial(_for_rows, count), output) if shared else output)
            parts.append(part)
        return _put_together(outputs, parts, [routing.rows(members) for members, _ in active], total)


def _for_rows(rows: int, tensor: torch.Tensor) -> torch.Tensor:
    """An output for all rows alike, such as that of an embedding of positions, as one for each row."""
    return tensor.expand(rows, *tensor.shape[1:]) if tensor.ndim and len(tensor) == 1 else tensor


def _has_rows(leaf: object, rows: int) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == rows


def _put_together(outputs: Sequence[Any], parts: Sequence[slice | list[int]], counts: Sequence[int], total: int) -> Any:
    """The groups' outputs as one, rows in their places."""
    flat = [tree_flatten(output) for output in outputs]
    whole = []
    for each in zip(*(leaves for leaves, _ in flat), strict=True):
        if not all(_has_rows(leaf, count) for leaf, count in zip(each, counts, strict=True)):
            whole.append(each[0])
            continue
        found = each[0].new_empty(total, *each[0].shape[1:])
        for part, leaf in zip(parts, each, strict=True):
            found[part] = leaf
        whole.append(found)
    return tree_unflatten(whole, flat[0][1])
