"""Dropout whose mask costs a CPU little: PyTorch draws one random number an element there, this one for every four."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

LEVELS = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout` with masks cut from 16 random bits an element on a CPU, so `p` is rounded to 1 / 65,536.

    Inputs elsewhere (a GPU, the meta device) go the ordinary way. Outputs are scaled by the rounded probability's
    own inverse, so their mean is the input's.
    """

    on_gpu: ClassVar[bool] = False
    """Whether tensors that stand for a GPU's are on the CPU meanwhile."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same shape as `x`."""
        dropped = round(self.p * LEVELS)
        if not self.training or not 0 < dropped < LEVELS or x.device.type != "cpu" or self.on_gpu:
            return super().forward(x)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        return x * (bits >= dropped - LEVELS // 2) * (LEVELS / (LEVELS - dropped))


class FusedDropout(TorchFunctionMode):
    """Dropout as a GPU has it, which keeps a mask of a byte an element; a CPU keeps one of the input's type."""

    def __enter__(self) -> Self:
        """Have it so, of this package's own kind too."""
        Dropout.on_gpu = True
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]  # torch leaves its modes untyped

    def __exit__(self, *error: object) -> None:
        """Have it as before."""
        Dropout.on_gpu = False
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function, or the GPU's in its place."""
        given = kwargs or {}
        if func is nn.functional.dropout and given.get("training") and not given.get("inplace") and 0 < given["p"] < 1:
            return torch.native_dropout(args[0], given["p"], True)[0]
        return func(*args, **given)
