"""Where a study trains, and in what precision."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from autopeft.common.exceptions import UserInputError, quoted
from autopeft.models import cards

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from autopeft.study.file import StudySpec


ADAMW, PAGED = "adamw", "paged_adamw_8bit"
"""Optimisers, by their names in study files: the usual one, and the one whose moments a GPU's driver may move away."""


@dataclass(frozen=True)
class Device:
    """Where to train, and in what precision.

    `autocast` is the precision of matrix products; None: float32 throughout. `optimizer` says how its moments are kept.
    """

    type: str
    autocast: torch.dtype | None
    optimizer: str = ADAMW

    @property
    def scaled(self) -> bool:
        """Whether the loss must be scaled, so that small gradients do not become 0 (`training.loss_scale`)."""
        return self.autocast is torch.float16

    def kernels(self) -> AbstractContextManager[None]:
        """The context of forward and backward passes.

        On a CPU attention is computed by plain matrix products: for inputs of a sentence or two that takes a fraction
        of the time of PyTorch's fused kernel (`benchmarks/cpu_step.py`).
        """
        return sdpa_kernel(SDPBackend.MATH) if self.type == "cpu" else nullcontext()

    def precision(self) -> AbstractContextManager[None]:
        """The context of a forward pass alone."""
        return torch.autocast(self.type, dtype=self.autocast, enabled=self.autocast is not None)


FLOAT32 = "float32"
LOWER = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions below float32, by their names in study files."""


def name_of(autocast: torch.dtype | None) -> str:
    """The precision's name in study files."""
    return str(autocast or torch.float32).removeprefix("torch.")


def supports_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 matrices natively; emulation would be slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def study_device(spec: StudySpec) -> Device:
    """The GPU if there is one, and the precision that is asked for.

    Of several GPUs that the study uses, the one with the most memory becomes the current one of this process.

    "auto" gives the lowest precision that may be worth its rounding: bfloat16 if the device computes it natively, else
    float16 on a GPU, else float32. `execution.precision` measures whether it is worth it.

    Raises:
        SpecError: the study names GPUs that are not here.
    """
    if several := cards.chosen(spec):
        cards.use(several[0])
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if spec.model.dtype == "auto":
        other = torch.float16 if kind == "cuda" else None
        return Device(kind, torch.bfloat16 if supports_bfloat16(kind) else other, spec.model.optimizer)
    return Device(kind, LOWER.get(spec.model.dtype), spec.model.optimizer)


def named_device(name: str | None) -> str:
    """The type of the named device; a GPU with a number becomes the current one.

    Args:
        name: "cpu", "cuda", or "cuda:1" for the second GPU; None: a GPU if there is one, else the CPU.

    Raises:
        UserInputError: the name is not one of these, or there is no such GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        return "cuda" if count else "cpu"
    if name == "cpu":
        return name
    kind, _, place = name.partition(":")
    if kind != "cuda" or not (place or "0").isdecimal():
        raise UserInputError(f"the device must be cpu, cuda or, for the second GPU, cuda:1, but is {quoted(name)}.")
    if int(place or 0) >= count:
        raise UserInputError(f"the device {quoted(name)} does not exist: PyTorch finds {count} GPUs; name another.")
    if place:
        torch.cuda.set_device(int(place))
    return kind


def precision_note(device: Device) -> str:
    """What to know about the precision; empty if there is nothing."""
    if device.autocast is torch.float16 and device.type == "cpu":
        return (
            '`dtype` in [model] is "float16", which is for GPUs without bfloat16: on this CPU you get the scores of '
            'float16, but every step is slower than with "auto".'
        )
    if device.autocast is not torch.bfloat16 or supports_bfloat16(device.type):
        return ""
    return (
        f'`dtype` in [model] is "bfloat16", which this {device.type} does not compute natively: you get the scores of '
        'bfloat16, but every step is slower than with "auto", which takes float32 here.'
    )


class AbsentCard(Device):
    """A GPU that is not here: the CPU's kernels stand in for its own, and fused attention for its fused attention."""

    def precision(self) -> AbstractContextManager[None]:
        """The context of a forward pass; autocast for "cuda" would do nothing on a machine without it."""
        return torch.autocast("cpu", dtype=self.autocast, enabled=self.autocast is not None)


def described_card(spec: StudySpec) -> Device:
    """The GPU to plan for. Every GPU since 2020 computes bfloat16."""
    kind = Device if torch.cuda.is_available() else AbsentCard
    lower = torch.bfloat16 if spec.model.dtype == "auto" else LOWER.get(spec.model.dtype)
    return kind("cuda", lower, spec.model.optimizer)
