"""How PyTorch's CUDA allocator lays a step's tensors out: in segments, of which it holds more than what is in use.

The limit of a process on a GPU is one of segments. The rules are those of CUDACachingAllocator.cpp in PyTorch 2.11 with
its default settings: a block goes to the smallest free one that holds it, which is split where enough is left over, and
free neighbours are joined. Where the device has no more, free segments are given back to it. That is not followed here,
so a step may get through with somewhat less.
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
"""The largest block that comes from the small segments (kSmallSize); of a larger one more than this is split off."""

SMALL_SEGMENT, LARGE_SEGMENT = 2 * MIB, 20 * MIB
"""Bytes of a segment for small blocks, and of one for larger blocks below `LARGE` (kSmallBuffer, kLargeBuffer)."""

LARGE = 10 * MIB
"""From this size on a block has a segment of its own at first (kMinLargeAlloc), rounded up to `SMALL_SEGMENT`."""

FAR = 2**48
"""Between the places of segments, so that none is beside another."""


@dataclass(slots=True, eq=False)
class Block:
    """A part of a segment, whose neighbours there are `before` and `behind`."""

    place: int
    size: int
    small: bool
    free: bool = True
    before: Block | None = None
    behind: Block | None = None


class Allocator:
    """One that does as the device's would.

    Attributes:
        held: bytes of its segments.
    """

    def __init__(self) -> None:
        self.held = 0
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}  # by size, then by place
        self._segments = 0

    def take(self, size: int) -> Block:
        """A block of so many bytes."""
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
    """Bytes of a trial at their highest: of the blocks in use, with what they have over, and of the segments."""

    used: int
    held: int


def needed(steps: Sequence[Sequence[Event]]) -> Need:
    """What a trial takes.

    Args:
        steps: traces of its first step, from the weights on, and of one behind it, in which the events of what is
            there from the start are empty.
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
    """Blocks of an allocator by when they were taken, as a trace has it.

    Attributes:
        peak: the most bytes in use so far.
    """

    def __init__(self) -> None:
        self.allocator = Allocator()
        self.peak = self._used = 0
        self._blocks: dict[int, Block] = {}
        self._copies: dict[int, list[int]] = {}  # taken for spared layers, by size

    def take(self, size: int, allocated_at: int) -> None:
        """Take a block for it."""
        block = self._blocks[allocated_at] = self.allocator.take(size)
        self._used += block.size
        self.peak = max(self.peak, self._used)
        if allocated_at >= COPY:
            self._copies.setdefault(size, []).append(allocated_at)

    def release(self, size: int, allocated_at: int) -> None:
        """Release what was taken then; or, where that is gone, what was for another layer and has the same size."""
        if allocated_at not in self._blocks:
            left = [other for other in self._copies.get(size, ()) if other in self._blocks]
            allocated_at = left[-1] if left else allocated_at
        self._release(allocated_at)

    def drop_copies(self) -> None:
        """Release all that was taken for spared layers."""
        for allocated_at in [allocated_at for allocated_at in self._blocks if allocated_at >= COPY]:
            self._release(allocated_at)

    def keep(self, lasting: AbstractSet[int]) -> None:
        """Release everything else."""
        for allocated_at in [allocated_at for allocated_at in self._blocks if allocated_at not in lasting]:
            self._release(allocated_at)

    def _release(self, allocated_at: int) -> None:
        block = self._blocks.pop(allocated_at, None)
        if block:
            self._used -= block.size
            self.allocator.release(block)
