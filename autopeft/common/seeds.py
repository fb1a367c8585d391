"""Seeds: one for each use, and PyTorch's random numbers drawn from one."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


def derive_seed(*parts: int) -> int:
    """A seed for one use, from the study's seed and where the use stands; unrelated for any two uses."""
    digest = hashlib.sha256(",".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers drawn from `seed` inside, and as they were afterwards."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if started else []):
        torch.manual_seed(seed)
        yield
