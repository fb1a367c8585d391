"""Groups of trained parameters with their own learning rate, as LoRA+ has one for B (arXiv:2402.12354)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.common.bounds import is_number
from autopeft.common.exceptions import PluginError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


@dataclass(frozen=True)
class ParameterGroup:
    """Trained parameters with their own learning rate or weight decay.

    Attributes:
        names: of the parameters, as given to `PeftMethod.parameter_groups`.
        rate: factor of the learning rate at every step of the schedule.
        weight_decay: of AdamW, which multiplies it by that learning rate. None: the candidate's, and 0 for vectors.
    """

    names: tuple[str, ...]
    rate: float = 1.0
    weight_decay: float | None = None


def checked(groups: Iterable[ParameterGroup], trained: Collection[str], method: str) -> tuple[ParameterGroup, ...]:
    """The groups, checked: they name trained parameters, each once, with rates that can train them.

    Raises:
        PluginError: a group breaks a rule.
    """
    made, seen = tuple(groups), set[str]()
    for group in made:
        fault = _fault(group, trained, seen)
        if fault:
            raise PluginError(f'method "{method}": parameter_groups() {fault}.')
        seen.update(group.names)
    return made


def _fault(group: object, trained: Collection[str], seen: set[str]) -> str:
    """What is wrong with a group, given the names `seen` in earlier ones; empty where nothing is."""
    if not isinstance(group, ParameterGroup):
        return f"must return ParameterGroup objects, but returned {group!r}"
    if unknown := [name for name in group.names if name not in trained]:
        return f"must use the names of trained parameters that it gets, but used {unknown[0]!r}"
    if len({*group.names}) < len(group.names) or seen & {*group.names}:
        twice = next(name for name in group.names if name in seen or group.names.count(name) > 1)
        return f"must name each parameter once, but named {twice!r} twice"
    if not is_number(group.rate) or group.rate <= 0:
        return f"needs a `rate` above 0, but gave {group.rate!r}"
    decay = group.weight_decay
    if decay is not None and (not is_number(decay) or decay < 0):
        return f"needs a `weight_decay` of at least 0, or None, but gave {decay!r}"
    return ""
