"""What of a candidate's model bears on the memory of its steps, and which of two models takes more in all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from autopeft.budget.memory.repeated_layers import settings
from autopeft.models.attach import trainable
from autopeft.models.marks import FROZEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


class Placed(NamedTuple):
    """A module that a method put somewhere: its class, its plain settings and its own tensors."""

    kind: type[nn.Module]
    settings: Mapping[str, bool | int | str | None]
    tensors: Shapes


@dataclass(frozen=True)
class Structure:
    """The modules a method put there with their settings, and what is trained, by name.

    The base model is the same for every candidate, so of that only the number of `kept` modules is part of it.
    """

    trained: Shapes
    placed: Mapping[str, Placed]
    kept: int

    @classmethod
    def of(cls, model: nn.Module) -> Structure:
        """Of a model with an add-on on."""
        modules = dict(model.named_modules())
        placed = {
            name: Placed(type(module), settings(module), _shapes(module._parameters))
            for name, module in modules.items()
            if not hasattr(module, FROZEN)
        }
        return cls(_shapes(trainable(model)), placed, len(modules) - len(placed))

    def within(self, other: Structure) -> bool:
        """Whether the other one has all that this one has, and nothing of it smaller: then its steps take no less.

        Settings must be the same, except for numbers that are the size of a tensor beside them.
        """
        return (
            self.kept <= other.kept
            and _no_larger(self.trained, other.trained)
            and all(name in other.placed and _fits_in(one, other.placed[name]) for name, one in self.placed.items())
        )


def _shapes(tensors: Mapping[str, torch.Tensor | None]) -> Shapes:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items() if tensor is not None}


def _no_larger(few: Shapes, many: Shapes) -> bool:
    """Whether every tensor is among the others, of the same type and in no dimension smaller."""
    for name, (shape, dtype) in few.items():
        larger, same = many.get(name, ((), None))
        if dtype != same or len(shape) != len(larger) or any(a > b for a, b in zip(shape, larger, strict=True)):
            return False
    return True


def _fits_in(one: Placed, other: Placed) -> bool:
    if one.kind is not other.kind or one.settings.keys() != other.settings.keys():
        return False
    return _no_larger(one.tensors, other.tensors) and all(
        value == other.settings[key] or not _places(value, one).isdisjoint(_places(other.settings[key], other))
        for key, value in one.settings.items()
    )


def _places(value: object, module: Placed) -> set[tuple[str, int]]:
    """Where among its tensors' dimensions the number is found."""
    if type(value) is not int:
        return set()
    return {(name, i) for name, (shape, _) in module.tensors.items() for i, size in enumerate(shape) if size == value}
