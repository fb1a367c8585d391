"""What MLflow is told of some trials beside how they ended."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Remarks(NamedTuple):
    """By trial number: why those that came first are not the winner, and what is told of trainings that collapsed."""

    passed_over: Mapping[int, str] = MappingProxyType({})
    collapsed: Mapping[int, str] = MappingProxyType({})


NO_REMARKS = Remarks()
