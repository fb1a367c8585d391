"""How PyTorch's CUDA allocator lays a step's tensors out: in segments, of which it holds more than what is in use.

The limit of a process on a GPU is one of segments. The rules are those of CUDACachingAllocator.cpp in PyTorch 2.11 with
its default settings: a block goes to the smallest free one that holds it, which is split where enough is left over;
neighbours that are free are joined; only a segment that is free as a whole can be given back to the device, and is when
the device has no more.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.gpu import THREADS
from autopeft.repetition import COPIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.repetition import Event

MIB = 2**20

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

TRIES, GROWTH = 4, 1.01
"""How often a limit is raised, by which factor, until the traces get through; what comes after is a guess."""


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

    Args:
        limit: bytes of segments that the device grants. None: as many as are asked for, but free segments are given
            back before a new one is taken, so that no more are held than must be.

    Attributes:
        held: bytes of its segments now.
        peak: the most they were.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.held = self.peak = 0
        self._limit = limit
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}  # by size, then by place
        self._segments = 0

    def take(self, size: int) -> Block | None:
        """A block of so many bytes; None where the device does not grant the segment for it."""
        size = -(-size // BLOCK) * BLOCK
        small = size <= SMALL
        free = self._free[small]
        at = bisect_left(free, (size, 0))
        block = free.pop(at)[2] if at < len(free) else self._segment(size, small=small)
        if block is None:
            return None
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

    def _segment(self, size: int, *, small: bool) -> Block | None:
        """A new segment as one block."""
        whole = SMALL_SEGMENT if small else LARGE_SEGMENT if size < LARGE else -(-size // SMALL_SEGMENT) * SMALL_SEGMENT
        if self._limit is None or self.held + whole > self._limit:
            self._give_back()
        if self._limit is not None and self.held + whole > self._limit:
            return None
        self.held += whole
        self.peak = max(self.peak, self.held)
        self._segments += 1
        return Block(self._segments * FAR, whole, small)

    def _give_back(self) -> None:
        """Give the device every segment that is free as a whole."""
        for free in self._free.values():
            kept = [entry for entry in free if entry[2].before or entry[2].behind]
            self.held -= sum(entry[0] for entry in free) - sum(entry[0] for entry in kept)
            free[:] = kept


def needed(steps: Sequence[Sequence[Event]], workspace: int) -> int:
    """Bytes of segments with which a trial gets through.

    Args:
        steps: traces of its first step, from the weights on, and of one behind it.
        workspace: bytes that the device's libraries take for themselves.
    """
    least = _peak(steps, workspace, None)
    assert least is not None  # without a limit everything is granted
    limit = least
    for _ in range(TRIES):
        if _peak(steps, workspace, limit) is not None:
            return limit
        limit = int(limit * GROWTH)
    return limit


def _peak(steps: Sequence[Sequence[Event]], workspace: int, limit: int | None) -> int | None:
    """The most bytes held; None where the limit is too low."""
    allocator = Allocator(limit)
    blocks: dict[int, list[Block]] = {}
    for _ in range(THREADS):
        if allocator.take(workspace // THREADS) is None:
            return None
    for step in steps:
        for event in step:
            if event.size > 0:
                block = allocator.take(event.size)
                if block is None:
                    return None
                blocks.setdefault(event.born, []).append(block)
            elif event.born == COPIES:
                for some in blocks.values():
                    while len(some) > 1:
                        allocator.release(some.pop())
            elif event.size < 0 and blocks.get(event.born):
                allocator.release(blocks[event.born].pop())
    return allocator.peak
