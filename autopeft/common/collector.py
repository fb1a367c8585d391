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


@contextmanager
def loading() -> Iterator[None]:
    """Inside nothing is collected, and collections pass over what is there at the end: for a command that loads once.

    Imports and a model make a million objects and next to no garbage; to look through them again and again takes an
    eighth of the time of a command that answers two rows.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if running:
            gc.enable()
