"""How PyTorch's CUDA allocator lays out a step's tensors: in segments, which hold more than what is in use.

The limit of a process on a GPU counts segments. The rules are those of CUDACachingAllocator.cpp in PyTorch 2.11 with
its default settings: a block goes to the smallest free one that holds it, which is split if enough is left over, and
free neighbours are joined. When the device is full, free segments are given back to it. That is not modelled here, so a
step may need somewhat less.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from autopeft.budget.memory.events import COPIES, COPY
from autopeft.budget.memory.gpu import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from autopeft.budget.memory.events import Event

BLOCK = 512
"""Blocks are rounded up to this many bytes (kMinBlockSize)."""

SMALL = MIB
"""The largest block that comes from the small segments (kSmallSize); larger ones are split if more than this is left.
"""

SMALL_SEGMENT, LARGE_SEGMENT = 2 * MIB, 20 * MIB
"""Bytes of a segment for small blocks, and of one for larger blocks below `LARGE` (kSmallBuffer, kLargeBuffer)."""

LARGE = 10 * MIB
"""From this size on, a new segment holds one block (kMinLargeAlloc), rounded up to `SMALL_SEGMENT`."""

FAR = 2**48
"""Distance between the places of segments, so that none is next to another."""


@dataclass(slots=True, eq=False)
class Block:
    """A part of a segment, with its neighbours `before` and `behind`."""

    place: int
    size: int
    small: bool
    free: bool = True
    before: Block | None = None
    behind: Block | None = None


class Allocator:
    """An allocator that behaves like the device's.

    Attributes:
        held: bytes of its segments.
    """

    def __init__(self) -> None:
        self.held = 0
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}  # by size, then by place
        self._segments = 0

    def take(self, size: int) -> Block:
        """Take a block of `size` bytes."""
        size = -(-size // BLOCK) * BLOCK
        small = size <= SMALL
        free = self._free[small]
        at = bisect_left(free, (size, 0))
        block = free.pop(at)[2] if at < len(free) else self._segment(size, small=small)
        block.free = False
        left = block.size - size
        if left >= BLOCK if small else left > SMALL:
            rest = Block(block.place + size, left, small, before=block, behind=block.behind)
            if rest.behind:
                rest.behind.before = rest
            block.size, block.behind = size, rest
            insort(free, (rest.size, rest.place, rest))
        return block

    def release(self, block: Block) -> None:
        """Take a block back, and join it with the free ones beside it."""
        free = self._free[block.small]
        if block.before and block.before.free:
            other = block.before
            free.pop(bisect_left(free, (other.size, other.place)))
            block.place, block.size, block.before = other.place, block.size + other.size, other.before
            if block.before:
                block.before.behind = block
        if block.behind and block.behind.free:
            other = block.behind
            free.pop(bisect_left(free, (other.size, other.place)))
            block.size, block.behind = block.size + other.size, other.behind
            if block.behind:
                block.behind.before = block
        block.free = True
        insort(free, (block.size, block.place, block))

    def _segment(self, size: int, *, small: bool) -> Block:
        """A new segment as one block."""
        whole = SMALL_SEGMENT if small else LARGE_SEGMENT if size < LARGE else -(-size // SMALL_SEGMENT) * SMALL_SEGMENT
        self.held += whole
        self._segments += 1
        return Block(self._segments * FAR, whole, small)


class Need(NamedTuple):
    """Highest bytes of a trial: of the blocks in use, with their rounding, and of the segments."""

    used: int
    held: int


def needed(steps: Sequence[Sequence[Event]]) -> Need:
    """What a trial needs.

    Args:
        steps: traces of its first step, from the weights on, and of a later one, where events of storages that exist
            from the start are empty.
    """
    layout = Layout()
    lasting = {event.allocated_at for event in steps[-1] if not event.size}
    for number, step in enumerate(steps):
        if number:
            layout.keep(lasting)
        for event in step:
            if event.size > 0:
                layout.take(event.size, event.allocated_at)
            elif event.allocated_at == COPIES:
                layout.drop_copies()
            elif event.size < 0:
                layout.release(-event.size, event.allocated_at)
    return Need(layout.peak, layout.allocator.held)


class Layout:
    """Blocks of an allocator by when they were taken, as in a trace.

    Attributes:
        peak: the most bytes in use so far.
    """

    def __init__(self) -> None:
        self.allocator = Allocator()
        self.peak = self._used = 0
        self._blocks: dict[int, Block] = {}
        self._copies: dict[int, list[int]] = {}  # taken for skipped layers, by size

    def take(self, size: int, allocated_at: int) -> None:
        """Take a block of `size` bytes."""
        block = self._blocks[allocated_at] = self.allocator.take(size)
        self._used += block.size
        self.peak = max(self.peak, self._used)
        if allocated_at >= COPY:
            self._copies.setdefault(size, []).append(allocated_at)

    def release(self, size: int, allocated_at: int) -> None:
        """Release what was taken then; or, if that is gone, what another layer took with the same size."""
        if allocated_at not in self._blocks:
            left = [other for other in self._copies.get(size, ()) if other in self._blocks]
            allocated_at = left[-1] if left else allocated_at
        self._release(allocated_at)

    def drop_copies(self) -> None:
        """Release everything that was taken for skipped layers."""
        for allocated_at in [allocated_at for allocated_at in self._blocks if allocated_at >= COPY]:
            self._release(allocated_at)

    def keep(self, lasting: AbstractSet[int]) -> None:
        """Release everything but `lasting`."""
        for allocated_at in [allocated_at for allocated_at in self._blocks if allocated_at not in lasting]:
            self._release(allocated_at)

    def _release(self, allocated_at: int) -> None:
        block = self._blocks.pop(allocated_at, None)
        if block:
            self._used -= block.size
            self.allocator.release(block)
