"""What a traced step does to memory: events, each an allocation or its release."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


COPIES = -1
"""Where an event says when something was taken: all that was added for skipped layers is released."""


COPY = 2**40
"""What was taken for the first, second, … skipped layer was taken this once, twice, … later than in the traced one."""


TRACED = -1
"""The layer that stands for the skipped ones, 0, 1, …"""


class Event(NamedTuple):
    """Of a trace: bytes of a kind that are taken or, negative, released; `allocated_at` is when they were taken."""

    kind: str
    size: int
    allocated_at: int


def of_layer(event: Event, allocated_at: int, layer: int) -> Event:
    """The event, of what that layer took then."""
    return event._replace(allocated_at=allocated_at + (layer - TRACED) * COPY)


def counterparts(part: Sequence[Event], like: Sequence[Event]) -> dict[int, int]:
    """When one layer took what another took then: of each size the first, the second, … are the same."""
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
"""Kinds of memory: what is made in a step and goes, and what is made there and stays."""
