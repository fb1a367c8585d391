"""Prefixes that peft can read and predict the same with: the positions of the input, and the layout of peft's file.

peft passes its prefix as keys and values of earlier tokens, so the model counts the input's positions from the prefix's
end. If peft can do that on every layer, models here count in the same way; if it cannot, positions stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from autopeft_prefix_tuning.prefix import prefixes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from autopeft import ModelSpec

POSITIONS = {
    "bert": "position_embeddings",
    "electra": "position_embeddings",
    "roberta": "position_embeddings",
    "gpt2": "wpe",
    "opt": "embed_positions",
    "llama": "rotary_emb",
    "qwen2": "rotary_emb",
}
"""Model types that were compared with peft, and their modules that get the positions of the input."""

COUNTED = "_autopeft_prefix_spec"
"""Marks a model that counts as peft does; the value is its `ModelSpec`."""


def count_as_peft(model: nn.Module, tokens: int, spec: ModelSpec, layers: int) -> None:
    """If peft can represent this model's prefixes, count the positions of its input from `tokens` on, as peft does.

    It can for the models above, with a prefix in every layer and no attention window: a window hides peft's prefix from
    tokens further away, but here all tokens see it. If a model has learnt a limited number of positions, all tokens
    beyond share the last one; peft fails on an input that long.

    Args:
        model: with its prefixes.
        tokens: of a prefix.
        spec: of the model.
        layers: how many were to have a prefix.

    Raises:
        ValueError: all layers were to, but `spec` says nothing of some. Without a prefix they would not compute what
            they compute in the base model, since they too get the positions that begin behind it.
    """
    config: Any = model.config
    windowed = getattr(config, "sliding_window", None) is not None
    if spec.model_type not in POSITIONS or windowed or layers != len(spec.layers):
        return
    if len({linear.layer for linear in spec.linears}) != layers:
        raise ValueError("with a prefix in every layer, all layers get the positions that begin behind it")
    if len(prefixes(model)) != layers:
        return
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == POSITIONS[spec.model_type]:
            module.register_forward_pre_hook(_Shift(tokens, module), with_kwargs=True)
    setattr(model, COUNTED, spec)


class _Shift:
    """Adds to the `position_ids` that a module is called with."""

    def __init__(self, tokens: int, module: nn.Module) -> None:
        self.tokens = tokens
        # The first entries of OPT's table have other uses.
        self.last = len(module.weight) - 1 - getattr(module, "offset", 0) if isinstance(module, nn.Embedding) else None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if "position_ids" in kwargs:
            return args, {**kwargs, "position_ids": self._shifted(kwargs["position_ids"])}
        return (*args[:-1], self._shifted(args[-1])), kwargs

    def _shifted(self, position_ids: torch.Tensor) -> torch.Tensor:
        shifted = position_ids + self.tokens
        return shifted if self.last is None else shifted.clamp(max=self.last)


def write(model: nn.Module, kept: Mapping[str, torch.Tensor], folder: Path) -> bool:
    """Write `adapter_config.json` and `adapter_model.safetensors`, for `PeftModel.from_pretrained`.

    Args:
        model: with prefixes.
        kept: the prefixes' states and what else was trained, by name.
        folder: to write to.

    Returns:
        False, with nothing written, if peft would predict something else, as it does for tasks that it does not have,
        or could not keep all that was trained.
    """
    from peft import PrefixTuningConfig
    from safetensors.torch import save_file

    spec: ModelSpec | None = getattr(model, COUNTED, None)
    names = [f"{name}.states" for name in prefixes(model)]
    rest = {name: tensor for name, tensor in kept.items() if name not in names}
    if spec is None or spec.peft_task_type is None or not all(name.startswith(spec.head) for name in rest):
        return False
    states = torch.stack([kept[name] for name in names])
    layers, _, heads, tokens, head_dim = states.shape
    tensors = {f"base_model.{name}": tensor for name, tensor in rest.items()}
    # [layers, keys or values, heads, tokens, width of a head]; in peft tokens come first and the rest is one dimension.
    tensors["prompt_embeddings"] = states.permute(3, 0, 1, 2, 4).flatten(1)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config: Any = model.config
    PrefixTuningConfig(
        task_type=spec.peft_task_type,
        num_virtual_tokens=tokens,
        num_layers=layers,
        num_attention_heads=heads,
        token_dim=heads * head_dim,
        num_transformer_submodules=1,
        encoder_hidden_size=heads * head_dim,
        modules_to_save=list(spec.head),
        base_model_name_or_path=config.name_or_path or None,
        inference_mode=True,
    ).save_pretrained(str(folder))
    return True
