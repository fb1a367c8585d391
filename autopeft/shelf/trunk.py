"""The part of a winner's model that all winners on one base have in common, and a way to run it for several at once."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from torch.utils._pytree import tree_map_only

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

PADDED = ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds")
"""Inputs of a trunk with a place for each token in their second dimension; the first is padded with `pad_token_id`, the
others with zeros."""


class AskedError(BaseException):
    """Ends a model's pass where it would run its trunk. It is no `Exception`, so that nothing on the way handles it."""


@dataclass
class Call:
    """What a model gives its trunk, by name.

    Attributes:
        tensors: with the rows in their first dimension.
        others: the rest.
    """

    tensors: dict[str, torch.Tensor]
    others: dict[str, Any]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.tensors.values())))

    @property
    def places(self) -> int:
        """Tokens of a row, padding included; 0 where no input has a place for each."""
        return max((tensor.shape[1] for name, tensor in self.tensors.items() if name in PADDED), default=0)

    @property
    def form(self) -> tuple[Any, ...]:
        """Equal for calls whose tensors can be put together."""
        shapes = ((name, one.dtype, one.shape[2 if name in PADDED else 1 :]) for name, one in self.tensors.items())
        return (*shapes, *((name, value) for name, value in self.others.items() if value is not None))


@dataclass
class Port:
    """Stands in for the trunk of a winner's model.

    Attributes:
        trunk: of the model.
        padding: id of the padding token.
    """

    trunk: nn.Module
    padding: int
    _own: Callable[..., Any] = field(init=False)
    _asking: bool = False
    _answer: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._own = self.trunk.forward
        self._names = [*inspect.signature(type(self.trunk).forward).parameters][1:]
        self.trunk.forward = self._forward

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self._asking:
            raise AskedError(self._call({**dict(zip(self._names, args, strict=False)), **kwargs}))
        return self._answer.pop() if self._answer else self._own(*args, **kwargs)

    def asked(self, run: Callable[[], Any]) -> Call:
        """What the model gives its trunk as it runs.

        Raises:
            RuntimeError: it never runs it, or gives it nothing that can be put together.
        """
        self._asking = True
        try:
            run()
        except AskedError as asked:
            call: Call = asked.args[0]
            return call
        finally:
            self._asking = False
        raise RuntimeError("the model did not run its trunk.")

    def answered(self, answer: Any, run: Callable[[], Any]) -> Any:
        """What the model makes of its trunk's answer."""
        self._answer = [answer]
        try:
            return run()
        finally:
            self._answer = []

    def _call(self, given: dict[str, Any]) -> Call:
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        if not tensors or len({len(tensor) for tensor in tensors.values()}) != 1:
            raise RuntimeError("the model gives its trunk inputs of different numbers of rows.")
        return Call(tensors, {name: value for name, value in given.items() if name not in tensors})


def put_together(calls: Sequence[Call], padding: int) -> dict[str, Any]:
    """The calls of several models, of equal `form`, as one: rows one after another, padded on the right."""
    longest = max(call.places for call in calls)
    found: dict[str, Any] = dict(calls[0].others)
    for name in calls[0].tensors:
        parts = [call.tensors[name] for call in calls]
        if name in PADDED:
            fill = padding if name == "input_ids" else 0
            parts = [_widened(part, longest, fill) for part in parts]
        found[name] = torch.cat(parts)
    return found


def _widened(tensor: torch.Tensor, places: int, fill: int) -> torch.Tensor:
    more = places - tensor.shape[1]
    return pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, more), value=fill) if more else tensor


def taken_apart(answer: Any, calls: Sequence[Call]) -> list[Any]:
    """The answer of a joined trunk for each call, without what was padded."""
    total, longest = sum(call.rows for call in calls), max(call.places for call in calls)
    found, start = [], 0
    for call in calls:
        few = slice(start, start + call.rows)
        start += call.rows

        def own(tensor: torch.Tensor, few: slice = few, places: int = call.places) -> torch.Tensor:
            if not tensor.ndim or len(tensor) != total:
                return tensor
            part = tensor[few]
            return part[:, :places] if part.ndim > 2 and part.shape[1] == longest else part

        found.append(tree_map_only(torch.Tensor, own, answer))
    return found
