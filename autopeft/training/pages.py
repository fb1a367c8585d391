"""CUDA memory that the driver moves between a GPU and the processor as either needs it (cudaMallocManaged).

bitsandbytes (0.50) can allocate it but not free it, so later trials reuse what one trial took.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

_FREE: list[torch.Tensor] = []
"""Pages, bytes `[n]`, that nobody uses now."""


def paged(tensor: torch.Tensor, taken: list[torch.Tensor]) -> torch.Tensor:
    """The tensor in paged memory, ready for the GPU: itself if it is there already, else a copy.

    Args:
        tensor: without gaps, of uint8.
        taken: gets the page taken for it, for `give_back`.
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
    """Let others use these pages."""
    _FREE.extend(taken)


def _take(size: int) -> torch.Tensor:
    """A page of at least `size` bytes: the smallest free one that fits, or a new one."""
    from bitsandbytes.functional import get_paged

    fitting = [index for index, page in enumerate(_FREE) if len(page) >= size]
    if fitting:
        return _FREE.pop(min(fitting, key=lambda index: len(_FREE[index])))
    page: torch.Tensor = get_paged(size, dtype=torch.uint8, device=torch.device("cuda", torch.cuda.current_device()))
    return page
