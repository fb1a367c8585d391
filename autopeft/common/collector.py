"""Python's garbage collector, kept from looking through what is there for good."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def settled() -> Iterator[None]:
    """Inside, collections pass over all objects that were there before.

    The libraries keep some 600,000 for good. To look through them takes half a second, and a study collects after each
    trial and each refit. What a caller has frozen already stays so.
    """
    outer = gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not outer:
            gc.unfreeze()
