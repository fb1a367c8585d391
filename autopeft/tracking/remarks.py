"""What MLflow is told about some trials besides how they ended."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Remarks(NamedTuple):
    """Remarks on trials, by number.

    Attributes:
        passed_over: why trials that came first are not the winner.
        collapsed: what to say about trainings that collapsed.
        cheaper: what trials that lost would have saved.
    """

    passed_over: Mapping[int, str] = MappingProxyType({})
    collapsed: Mapping[int, str] = MappingProxyType({})
    cheaper: Mapping[int, str] = MappingProxyType({})


NO_REMARKS = Remarks()
