"""A limit on what is built while a model is loaded: a configuration may describe more than its weights can fill."""

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
"""Limit in multiples of the checkpoint's tensors and bytes. Each parameter is registered when it is built and again
when it is filled, tied embeddings once per module that shares them, and a quantized weight gives two numbers per byte.
"""

SPARE_TENSORS, SPARE_NUMBERS = 1_000, 2**26
"""Room for a new head, and for tables that no checkpoint holds."""


@contextmanager
def size_limit(tensors: int, size: int) -> Iterator[None]:
    """Inside, build a model for a checkpoint of this many `tensors`, of `size` bytes in total.

    Raises:
        ModelError: the model is far larger. Building stops there, since a million layers would take an hour.
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
