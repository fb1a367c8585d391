"""Seeds: one for each use, and PyTorch's random numbers drawn from one."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


REFIT_STREAM = 1_000_000
WRITTEN_ROWS_STREAM = 2_000_000
INITIAL_VALUES_STREAM = 3_000_000
FRESH_SPLITS_STREAM = 4_000_000
FRESH_BATCHES_STREAM = 5_000_000
REFIT_ROWS_STREAM = 6_000_000
AVERAGE_ROWS_STREAM = 7_000_000
"""Parts of a seed that keep each use of the study's seed apart from other uses, and from the folds' small parts.

A refit that is run again counts on from the first, so each has room for many.
"""


def derive_seed(*parts: int) -> int:
    """A seed for one use, from the study's seed and numbers that identify the use; seeds of two uses are unrelated."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` within the block; afterwards its state is as before."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if started else []):
        torch.manual_seed(seed)
        yield
