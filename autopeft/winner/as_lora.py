"""Writes a winner's changes to its base model's linear maps as a LoRA, if its method can be merged.

The difference W' - W of each map is split by its singular values, which gives the nearest pair of any rank (Eckart &
Young 1936). The changes of AdaLoRA and VeRA have a small rank, so their pairs are exact. The changes of DoRA and (IA)³
may have any rank, and the share that a pair loses is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers.pytorch_utils import Conv1D

from autopeft.common.exceptions import UserInputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from autopeft.methods.contract import ModelSpec

EXACT, EXACT_RANK = 1e-4, 128
"""Largest share of a difference that rounding may lose, and the largest rank of a pair that loses no more than that."""
NEAR, MOST = 1e-2, 512
"""Largest share that a pair may lose where more rank would be needed, and the largest rank that servers allow."""


class NoLoraError(UserInputError):
    """A winner's changes are not a LoRA, nor close to one."""


def write(plain: nn.Module, base: nn.Module, spec: ModelSpec, folder: Path, named: str) -> float:
    """Write peft's `adapter_config.json` and `adapter_model.safetensors` to a folder.

    Args:
        plain: the model with the add-on folded in, in float32.
        base: the base model, likewise.
        spec: the base model's description for methods; its head is saved whole.
        folder: to write to.
        named: the base model's name in the files.

    Returns:
        The largest share of a map's difference that its pair loses, by the Frobenius norm.

    Raises:
        NoLoraError: not only linear maps are changed, or a difference is not close to any pair that servers take.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    maps, before = {linear.name for linear in spec.linears}, base.state_dict()
    tensors, ranks, most = dict[str, torch.Tensor](), dict[str, int](), 0.0
    for name, tensor in plain.state_dict().items():
        module = name.rpartition(".")[0]
        if any(f"{module}.".startswith(f"{head}.") for head in spec.head):
            tensors[f"base_model.model.{name}"] = tensor.contiguous()
            continue
        if not tensor.is_floating_point() or not (change := tensor - before[name]).any():
            continue
        if module not in maps or not name.endswith(".weight"):
            raise NoLoraError(
                f"a LoRA changes only linear layers, but this winner changes {name}; export it as merged, and serve "
                "that as a separate model."
            )
        transposed = isinstance(plain.get_submodule(module), Conv1D)
        low, high, lost = pair(change.T if transposed else change, name)
        tensors[f"base_model.model.{module}.lora_A.weight"] = low
        tensors[f"base_model.model.{module}.lora_B.weight"] = high
        ranks[module], most = len(low), max(most, lost)
    if not ranks:
        raise NoLoraError("a LoRA needs a layer that it changes, but this winner changes none.")
    config = LoraConfig(
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=[*ranks],
        modules_to_save=list(spec.head) or None,
        fan_in_fan_out=any(isinstance(plain.get_submodule(name), Conv1D) for name in ranks),
        task_type=spec.peft_task_type,
        base_model_name_or_path=named,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return most


def pair(change: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A `[rank, in]` and B `[out, rank]`, whose product is close to a change `[out, in]`, and the share that it loses.

    Raises:
        NoLoraError: no rank that servers take is close enough.
    """
    left, values, right = torch.linalg.svd(change.float(), full_matrices=False)
    squares = values.double().square()
    left_out = squares.flip(0).cumsum(0).flip(0)  # left_out[r]: by the first r values
    shares = torch.cat([left_out, left_out.new_zeros(1)]).div(left_out[0]).sqrt()
    rank = _fewest(shares, EXACT)
    if rank > EXACT_RANK:
        rank = _fewest(shares, NEAR)
    if rank > MOST:
        raise NoLoraError(
            f"LoRA servers take ranks up to {MOST}, but at this rank {float(shares[MOST]):.1%} of what this winner "
            f"adds to {name} would be lost; export it as merged, and serve that as a separate model."
        )
    root = values[:rank].sqrt()
    low, high = root[:, None] * right[:rank], left[:, :rank] * root
    return low.contiguous(), high.contiguous(), float(shares[rank])


def _fewest(shares: torch.Tensor, allowed: float) -> int:
    """The smallest rank that loses no more than is allowed, at least 1."""
    return max(1, int((shares > allowed).sum()))
