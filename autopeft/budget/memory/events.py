"""What a traced step does to memory: events, each an allocation or a release."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


COPIES = -1
"""In place of the time something was taken: everything that was added for skipped layers is released."""


COPY = 2**40
"""The first, second, … skipped layer takes memory once, twice, … this much later than the traced one."""


TRACED = -1
"""The layer that stands for the skipped ones, 0, 1, …"""


class Event(NamedTuple):
    """One event of a trace: bytes of a kind, taken or, if negative, released; `allocated_at`: when they were taken."""

    kind: str
    size: int
    allocated_at: int


def of_layer(event: Event, allocated_at: int, layer: int) -> Event:
    """The event, for what `layer` took then."""
    return event._replace(allocated_at=allocated_at + (layer - TRACED) * COPY)


def counterparts(part: Sequence[Event], like: Sequence[Event]) -> dict[int, int]:
    """When one layer took what another took then: the first, second, … of each size correspond."""
    places = defaultdict[int, list[int]](list)
    for event in like:
        if event.size > 0 and event.kind == ACTIVATIONS:
            places[event.size].append(event.allocated_at)
    found: dict[int, int] = {}
    for event in part:
        if event.size > 0 and event.kind == ACTIVATIONS and places[event.size]:
            found[event.allocated_at] = places[event.size].pop(0)
    return found


ACTIVATIONS, LASTING = "activations", "optimizer"
"""Kinds of memory: what a step makes and frees, and what it makes and keeps."""
