"""Writes a LoRA in the one form that vLLM, SGLang, llama.cpp and Ollama all read correctly.

Servers read `lora_alpha` and the rank, and few read more: SGLang and llama.cpp scale by lora_alpha / r and silently
ignore `use_rslora` and `alpha_pattern`. So the scale is multiplied into B, every pair is padded with zeros to one rank,
and `lora_alpha` is that rank, so that lora_alpha / r is 1.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from autopeft.common.exceptions import UserInputError, in_a_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `max_lora_rank` in vLLM 0.33."""

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PAIR = re.compile(r"(.+)\.lora_([AB])\.weight$")
HEADS = ("score", "classifier")
"""Heads that vLLM takes with a LoRA: one linear map with one of these names."""

NEUTRAL: dict[str, Any] = {
    "alpha_pattern": {},
    "bias": "none",
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_bias": False,
    "rank_pattern": {},
    "use_dora": False,
    "use_rslora": False,
}
"""Settings without effect, which replace those that servers refuse or do not read."""


class ServingError(UserInputError):
    """An adapter that servers cannot read correctly."""


def rewrite(folder: Path) -> None:
    """Bring peft's LoRA in a folder into that form, in place.

    Args:
        folder: with `adapter_config.json` and `adapter_model.safetensors`, as peft saves them.

    Raises:
        ServingError: it is not a LoRA, or has other parts than pairs of A and B and a head of one linear map.
    """
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    tensors = load_file(folder / WEIGHTS)
    _require_lora(config, tensors)
    made, rank = _scaled(tensors, config)
    kept = [name for name in config.get("modules_to_save") or () if name]
    config |= {
        **NEUTRAL,
        "r": rank,
        "lora_alpha": rank,
        "modules_to_save": kept or None,
        "target_modules": sorted({_module(name).rpartition(".")[2] for name in made if PAIR.match(name)}),
    }
    save_file(made, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def for_vllm(folder: Path) -> str:
    """How vLLM serves the adapter that `rewrite` wrote, or why it cannot."""
    rank = int(json.loads((folder / CONFIG).read_text(encoding="utf-8"))["r"])
    if rank > RANKS[-1]:
        return f"takes ranks up to {RANKS[-1]}, but this one is {rank}: export as merged for it"
    return f"vllm serve BASE --enable-lora --lora-modules winner=THIS_FOLDER --max-lora-rank {rank}"


def _require_lora(config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    kind = config.get("peft_type")
    reason = None
    if kind != "LORA":
        reason = f"this winner has the type {kind}"
    elif config.get("task_type") == "SEQ_2_SEQ_LM":
        reason = "they do not serve models with an encoder and a decoder"
    elif config.get("use_dora"):
        reason = "DoRA has a magnitude for each pair, which vLLM refuses and which makes llama.cpp exit"
    elif config.get("bias", "none") != "none" or config.get("lora_bias"):
        reason = "it trains biases"
    else:
        heads = {name.removeprefix("base_model.model.") for name in tensors if not PAIR.match(name)}
        odd = sorted(name for name in heads if name.rpartition(".")[0] not in HEADS)
        if odd:
            reason = f"it has other tensors than these pairs, such as {odd[0]}"
    if reason:
        raise ServingError(
            f"servers read plain LoRA, pairs of A and B and a head of one linear map named {' or '.join(HEADS)}, but "
            f"{reason}; export it as merged, and serve that as a separate model."
        )


def _scaled(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], int]:
    """The tensors with scales in B and all pairs padded to one rank; and that rank."""
    import torch

    ranks = {_module(name): len(tensor) for name, tensor in tensors.items() if name.endswith("lora_A.weight")}
    most = max(ranks.values())
    rank = next((known for known in RANKS if known >= most), most)
    made = {}
    for name, tensor in tensors.items():
        pair = PAIR.match(name)
        if not pair:
            made[name] = tensor.contiguous()
            continue
        module, part = _module(name), pair[2]
        own = ranks[module]
        if part == "A":
            filled = torch.zeros(rank, tensor.shape[1], dtype=torch.float32)
            filled[:own] = tensor.float()
        else:
            filled = torch.zeros(tensor.shape[0], rank, dtype=torch.float32)
            filled[:, :own] = tensor.float() * _scale(config, module, own)
        made[name] = filled
    return made, rank


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor of B · A in that module, by peft's rule."""
    alpha = _of_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_pattern(patterns: Mapping[str, Any], module: str, usual: Any) -> Any:
    """The value of the first pattern that the module's name ends with, by peft's own rule."""
    try:
        return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), usual)
    except re.error as error:
        raise ServingError(f"`alpha_pattern` has an invalid regular expression: {in_a_line(error)}.") from None


def _module(name: str) -> str:
    """The module that a pair belongs to."""
    found = PAIR.match(name)
    assert found
    return found[1].removeprefix("base_model.model.")
