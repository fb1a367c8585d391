"""A limit on what is built while a model is loaded: a configuration may say more than its weights can fill."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch.nn.modules.module import register_module_buffer_registration_hook as on_buffer
from torch.nn.modules.module import register_module_parameter_registration_hook as on_parameter

from autopeft.common.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

TIMES = 8
"""Times the tensors, and the bytes, in the checkpoint. Each parameter is registered as it is built and again as it is
filled, tied embeddings once for each module that shares them, and a quantized weight unfolds to two numbers a byte."""

SPARE_TENSORS, SPARE_NUMBERS = 1_000, 2**26
"""For a new head, and for tables that no checkpoint holds."""


@contextmanager
def size_limit(tensors: int, size: int) -> Iterator[None]:
    """Build a model inside that belongs to a checkpoint of so many `tensors`, of `size` bytes together.

    Raises:
        ModelError: there is far more to it. It stops there: to build a million layers takes an hour.
    """
    thread, built, numbers = threading.get_ident(), 0, 0
    most, largest = TIMES * tensors + SPARE_TENSORS, TIMES * size + SPARE_NUMBERS

    def registered(module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal built, numbers
        if tensor is None or threading.get_ident() != thread:
            return
        built, numbers = built + 1, numbers + tensor.numel()
        if built > most or numbers > largest:
            found = f"more than {built - 1:,} tensors" if built > most else f"more than {largest:,} numbers"
            raise ModelError(
                f"config.json describes a model of {found}, but its weights are {tensors:,} tensors of {size:,} bytes; "
                "give the configuration that belongs to them."
            )

    hooks = [on_parameter(registered), on_buffer(registered)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
