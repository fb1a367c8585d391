"""Groups of trained parameters with a learning rate of their own, as LoRA+ has one for B (arXiv:2402.12354)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.common.bounds import is_number
from autopeft.common.exceptions import PluginError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters with a learning rate or a weight decay of their own.

    Attributes:
        names: as `PeftMethod.parameter_groups` is given them.
        rate: what the learning rate is multiplied by, at every step of the schedule.
        weight_decay: of AdamW, which multiplies it by that learning rate. None: the candidate's, and none for vectors.
    """

    names: tuple[str, ...]
    rate: float = 1.0
    weight_decay: float | None = None


def checked(groups: Iterable[ParameterGroup], trained: Collection[str], method: str) -> tuple[ParameterGroup, ...]:
    """The groups, once they are found to name what is trained, each once, at rates that can train it.

    Raises:
        PluginError: they do not.
    """
    made, seen = tuple(groups), set[str]()
    for group in made:
        fault = _fault(group, trained, seen)
        if fault:
            raise PluginError(f'method "{method}": parameter_groups() {fault}.')
        seen.update(group.names)
    return made


def _fault(group: object, trained: Collection[str], seen: set[str]) -> str:
    """What is wrong with a group beside those of the names `seen`; empty where nothing is."""
    if not isinstance(group, ParameterGroup):
        return f"must give each a ParameterGroup, but gave {group!r}"
    if unknown := [name for name in group.names if name not in trained]:
        return f"must name trained parameters by the names that it gets, but named {unknown[0]!r}"
    if len({*group.names}) < len(group.names) or seen & {*group.names}:
        twice = next(name for name in group.names if name in seen or group.names.count(name) > 1)
        return f"must name each parameter once, but named {twice!r} twice"
    if not is_number(group.rate) or group.rate <= 0:
        return f"needs a `rate` above 0, but gave {group.rate!r}"
    decay = group.weight_decay
    if decay is not None and (not is_number(decay) or decay < 0):
        return f"needs a `weight_decay` of at least 0, or None, but gave {decay!r}"
    return ""
