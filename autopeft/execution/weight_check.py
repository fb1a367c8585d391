"""The weights of the base model, which every trial shares: check that they are unchanged, and restore them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from autopeft.common.exceptions import StudyError, in_a_line
from autopeft.models import quantization

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.models.base import BaseModel

WORD = 8
"""Bytes per word that is added up."""


class WeightCheck:
    """Detects changes of a base model's weights by a sum of each tensor's bits, and restores them.

    Args:
        base: the model.
        load: loads it again, as it was.

    Attributes:
        load: that function.
    """

    def __init__(self, base: BaseModel, load: Callable[[], BaseModel]) -> None:
        self._base, self.load = base, load
        self._prints = _prints(base)
        self._lost = ""

    def restore(self) -> list[str]:
        """Restore the tensors that changed, and return their names. If that fails, `check` says so."""
        now = _prints(self._base)
        broken = [name for name, kept in self._prints.items() if now.get(name) != kept]
        if broken and not self._lost:
            try:
                self._put_back(broken)
            except Exception as error:
                self._lost = f"{', '.join(broken[:3])} could not be restored ({in_a_line(error)})"
        return broken

    def check(self) -> None:
        """Make sure that the next trial trains on the unchanged base model.

        Raises:
            StudyError: some of its tensors were changed and could not be restored.
        """
        if self._lost:
            raise StudyError(
                f"a method changed the base model's weights, and {self._lost}. Fix its plugin and run the same command "
                "again: the trials that finished are kept. To go on without it, see `--block`."
            )

    def _put_back(self, names: list[str]) -> None:
        fresh = dict(self.load().module.named_parameters())
        for name, parameter in self._base.module.named_parameters():
            if name in names:
                parameter.data = fresh[name].data.to(parameter.device)
                parameter.grad = None
                parameter.requires_grad_(False)
        now = _prints(self._base)
        if now != self._prints:
            raise ValueError("the model's files hold other weights now")


@torch.no_grad()
def _prints(base: BaseModel) -> dict[str, tuple[object, ...]]:
    """A fingerprint of each tensor, which shows a change: its shape, type and use, and the sum of its bits.

    Quantized maps are left out, since bitsandbytes itself casts their biases while it runs.
    """
    maps = filter(quantization.is_quantized, base.module.modules())
    theirs = {id(parameter) for module in maps for parameter in module.parameters(recurse=False)}
    tensors = {name: tensor for name, tensor in base.module.named_parameters() if id(tensor) not in theirs}
    sums = torch.stack([_sum(tensor) for tensor in tensors.values()]).tolist()
    return {
        name: (tuple(tensor.shape), tensor.dtype, tensor.requires_grad, total)
        for (name, tensor), total in zip(tensors.items(), sums, strict=True)
    }


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's memory as integers, added up modulo 2⁶⁴: any single change shows, whatever its size."""
    raw = tensor.detach().reshape(-1).view(torch.uint8)
    if raw.data_ptr() % WORD or raw.storage_offset() % WORD:
        raw = raw.clone()
    whole = len(raw) // WORD * WORD
    return raw[:whole].view(torch.int64).sum() + raw[whole:].sum(dtype=torch.int64)
