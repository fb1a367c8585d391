"""Memory of CUDA that the driver moves between a GPU and the processor as either needs it (cudaMallocManaged).

bitsandbytes (0.50) can take it and has no way to give it back, so what one trial took serves the next ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

_FREE: list[torch.Tensor] = []
"""Bytes `[n]` that nobody uses now."""


def paged(tensor: torch.Tensor, taken: list[torch.Tensor]) -> torch.Tensor:
    """The tensor in paged memory, ready for the GPU: itself where it is there already, else a copy.

    Args:
        tensor: without gaps, of uint8.
        taken: memory that is taken for it is added here, for `give_back`.
    """
    from bitsandbytes import functional

    if not is_paged(tensor):
        page = _take(tensor.nbytes)
        taken.append(page)
        torch.cuda.synchronize()
        copy = page[: tensor.nbytes].view(tensor.shape).copy_(tensor)
        copy.is_paged, copy.page_deviceid = True, page.page_deviceid  # type: ignore[attr-defined]  # bitsandbytes' marks
        tensor = copy
    functional.prefetch_tensor(tensor)
    return tensor


def is_paged(tensor: torch.Tensor) -> bool:
    """Whether it is in paged memory, which serves a GPU and the processor alike."""
    return bool(getattr(tensor, "is_paged", False))


def give_back(taken: Sequence[torch.Tensor]) -> None:
    """Leave memory to whoever asks next."""
    _FREE.extend(taken)


def _take(size: int) -> torch.Tensor:
    """At least so many bytes: the smallest that are free, or new ones."""
    from bitsandbytes.functional import get_paged

    fitting = [index for index, page in enumerate(_FREE) if len(page) >= size]
    if fitting:
        return _FREE.pop(min(fitting, key=lambda index: len(_FREE[index])))
    page: torch.Tensor = get_paged(size, dtype=torch.uint8, device=torch.device("cuda", torch.cuda.current_device()))
    return page
