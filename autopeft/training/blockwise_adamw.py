"""AdamW with 8-bit moments by bitsandbytes, for each fold separately: no block of moments spans two folds."""

from __future__ import annotations

import importlib.util
import platform
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from autopeft.common.exceptions import ModelError
from autopeft.models.device import ADAMW, PAGED
from autopeft.models.quantization import X86
from autopeft.training import pages

if TYPE_CHECKING:
    from collections.abc import Iterable

BLOCK = 256
"""Moments that share one scale (`Optimizer2State.init_state` in bitsandbytes/optim/optimizer.py, 0.50)."""

LEAST, LEAST_PAGED = 4096, 100_000
"""Size of a tensor from which its moments are kept in 8 bits, and size from which they are paged (`min_8bit_size` and
`get_state_buffer` there). Moments of smaller tensors stay in float32, and on the GPU."""


def require(kind: str) -> None:
    """Make sure that this machine can train with this optimiser.

    Raises:
        ModelError: no device here can, or bitsandbytes is not installed.
    """
    rule = f'`optimizer = "{kind}"` in [model] needs'
    if kind == ADAMW:
        return
    if not torch.cuda.is_available():
        if kind == PAGED:
            raise ModelError(
                f"{rule} a CUDA device, whose memory is what is paged, and this machine has none; use "
                '"adamw_8bit" or "adamw".'
            )
        if platform.machine().lower() not in X86:
            raise ModelError(f'{rule} a CUDA device or an x86 processor, and this machine has neither; use "adamw".')
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f'{rule} bitsandbytes, which is not installed; run pip install "autopeft[quantization]".')


def moment_bytes(kind: str, sizes: Iterable[int]) -> int:
    """Bytes that the moments of one fold's tensors of these sizes need on the device.

    AdamW: `8 n` for n values. In 8 bits, for `n ≥ 4096`: `2 n + 8 · ⌈n / 256⌉`. Paged, for `n ≥ 100,000`: only the
    scales, `8 · ⌈n / 256⌉`.
    """
    return sum(_moments(kind, n) for n in sizes)


def _moments(kind: str, n: int) -> int:
    if kind == ADAMW or n < LEAST:
        return 8 * n
    return (0 if kind == PAGED and n >= LEAST_PAGED else 2 * n) + 8 * -(-n // BLOCK)


class BlockwiseAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), its moments in 8 bits (Dettmers et al. 2022, 2110.02861).

    Each slice of a stack `[folds, …]` becomes, bit for bit, what `bitsandbytes.optim.AdamW8bit` makes of it alone,
    since its kernels get one slice at a time. The state of a stack: `step` `[folds]`, `state1` and `state2` `[folds,
    n]`, and in 8 bits their scales `absmax1` and `absmax2` `[folds, ⌈n / 256⌉]`. With one fold the first dimension is
    missing.

    Args:
        params: groups of tensors; with several folds, each tensor is a stack.
        lr: learning rate.
        folds: slices of each tensor.
        paged: keep large moments in memory that the driver moves off a full GPU, and back.

    Attributes:
        found_inf: `[folds]`; not 0 where a slice must stay as it is, with its moments and step count.
    """

    found_inf: torch.Tensor | None = None

    def __init__(self, params: Iterable[Any], lr: float, folds: int = 1, *, paged: bool = False) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0})
        self.folds, self.paged = folds, paged
        self._maps: tuple[torch.Tensor, torch.Tensor] | None = None
        self._pages: list[torch.Tensor] = []
        weakref.finalize(self, pages.give_back, self._pages)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing here gives a closure
        """Update every slice that takes part. For fake tensors, only make the state."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    fake = isinstance(parameter, FakeTensor)
                    if not self.state[parameter]:
                        self._begin(parameter, fake=fake)
                    if not fake:
                        self._update(parameter, group)
        if self._pages:
            torch.cuda.synchronize()  # a processor that reads these pages does not wait for the GPU

    def _begin(self, parameter: torch.Tensor, *, fake: bool) -> None:
        """Make zero moments. Paged ones can always leave the GPU, so none are made for fake tensors."""
        state, size = self.state[parameter], parameter.numel() // self.folds
        stacked = (self.folds,) if self.folds > 1 else ()
        state["step"] = torch.zeros(stacked, dtype=torch.int64)
        in_8_bits, place = size >= LEAST, parameter.device
        for number in (1, 2):
            if not (fake and self._is_paged(size)):
                dtype = torch.uint8 if in_8_bits else torch.float32
                state[f"state{number}"] = torch.zeros(*stacked, size, dtype=dtype, device=place)
            if in_8_bits:
                state[f"absmax{number}"] = torch.zeros(*stacked, -(-size // BLOCK), device=place)
        if in_8_bits and self._maps is None:
            self._maps = _maps(place, fake=fake)

    def _is_paged(self, size: int) -> bool:
        return self.paged and size >= LEAST_PAGED

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        taken = torch.ones(self.folds, dtype=torch.int64)
        if self.found_inf is not None:
            taken -= self.found_inf.reshape(-1).cpu().bool().long()
        state["step"] = state["step"].cpu() + taken.view_as(state["step"])
        values = parameter.detach().contiguous()
        if self._is_paged(values.numel() // self.folds):
            for name in ("state1", "state2"):
                state[name] = pages.paged(state[name], self._pages)
        named = {"p": values, "g": parameter.grad, **{name: tensor for name, tensor in state.items() if name != "step"}}
        stacks = {name: tensor.reshape(self.folds, -1) for name, tensor in named.items()}
        for fold, (count, part) in enumerate(zip(state["step"].view(-1).tolist(), taken.tolist(), strict=True)):
            if part:
                self._update_slice({name: stack[fold] for name, stack in stacks.items()}, count, group)
        if values.data_ptr() != parameter.data_ptr():  # not contiguous, so `values` is a copy
            parameter.copy_(values)

    def _update_slice(self, part: dict[str, torch.Tensor], count: int, group: dict[str, Any]) -> None:
        import bitsandbytes  # noqa: F401  # it registers its kernels

        kernels, (first, second) = torch.ops.bitsandbytes, group["betas"]
        given = {"g": part["g"], "p": part["p"], "state1": part["state1"], "state2": part["state2"]}
        rates = {"eps": group["eps"], "weight_decay": group["weight_decay"], "lr": group["lr"], "step": count}
        common = {"beta1": first, "beta2": second, "beta3": 0.0, "alpha": 0.0, "gnorm_scale": 1.0, **given, **rates}
        if "absmax1" not in part:
            kernels.optimizer_update_32bit("adam", unorm_vec=None, max_unorm=0.0, param_norm=0.0, **common)
            return
        if self._maps is None or self._maps[0].device != part["p"].device:  # none yet when training resumes
            self._maps = _maps(part["p"].device, fake=False)
        scales = {"absmax1": part["absmax1"], "absmax2": part["absmax2"]}
        tables = {"qmap1": self._maps[0], "qmap2": self._maps[1]}
        kernels.optimizer_update_8bit_blockwise("adam", **common, **scales, **tables)


def _maps(place: torch.device, *, fake: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The numbers that 8-bit first and second moments stand for, float32 `[256]` each."""
    if fake:
        return torch.zeros(256, device=place), torch.zeros(256, device=place)
    from bitsandbytes.functional import create_dynamic_map

    signed, unsigned = (create_dynamic_map(signed=signed) for signed in (True, False))
    return signed.to(place), unsigned.to(place)
