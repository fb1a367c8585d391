"""The weights of a quantized model's linear maps before quantization, read from the model's files one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import ModelError
from autopeft.models import files
from autopeft.models.marks import ORIGINAL

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from autopeft.methods.contract import ModelSpec


@dataclass(frozen=True)
class Original:
    """Where a weight is: its name, its safetensors file, and whether it is stored as `[in, out]`, like GPT-2's."""

    path: Path
    name: str
    transposed: bool


def mark(module: Any, spec: ModelSpec, folder: Path) -> None:
    """Mark each quantized linear map with the place of its weight in the files, unless it has another name there.

    Args:
        module: the quantized model.
        spec: its description.
        folder: holds the files.
    """
    from safetensors import safe_open

    places: dict[str, Path] = {}
    for path in files.weights(folder):
        with safe_open(path, framework="pt") as file:
            places |= dict.fromkeys(file.keys(), path)
    prefix = f"{module.base_model_prefix}."  # with or without it, depending on whether the checkpoint has a head
    for linear in spec.linears:
        name = f"{linear.name}.weight"
        known = next((each for each in (name, name.removeprefix(prefix), prefix + name) if each in places), None)
        if known:
            setattr(module.get_submodule(linear.name), ORIGINAL, Original(places[known], known, linear.transposed))


def original_weight(module: nn.Module) -> torch.Tensor:
    """The weight of a quantized linear layer before quantization: float32 `[out, in]` on the CPU.

    Raises:
        ModelError: the map is not quantized, or its weight is not found in the model's files.
    """
    from safetensors import safe_open

    where, wanted = vars(module).get(ORIGINAL), (getattr(module, "out_features", 0), getattr(module, "in_features", 0))
    if not isinstance(where, Original):
        raise ModelError(
            "the weight before quantization exists only for quantized linear maps that have the same names in the "
            f"model's files, and this {type(module).__name__} is not one; do not ask for it on this model."
        )
    with files.reading(f"{where.path} must still hold {where.name}"), safe_open(where.path, framework="pt") as file:
        weight: torch.Tensor = file.get_tensor(where.name).float()
    weight = weight.T if where.transposed else weight
    if tuple(weight.shape) != wanted:
        raise ModelError(
            f"{where.name} in {where.path} must be the weight that was quantized, of shape {wanted}, but has "
            f"{tuple(weight.shape)}; restore the model's files."
        )
    return weight
