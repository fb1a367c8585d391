"""The file a saved add-on's weights go to: what it holds, and how large it will be before anything is trained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autopeft.model import trainable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn


def saved_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What is kept of a trained model, by name; of a model on the meta device or on any other, for its sizes.

    peft decides for its own methods: of a reparameterized prefix it keeps the result alone, not the network.
    """
    from peft import PeftModel, get_peft_model_state_dict

    if not isinstance(model, PeftModel):
        return {name: parameter.detach() for name, parameter in trainable(model).items()}
    if model.active_peft_config.is_prompt_learning:
        return _with_prompt(model)
    kept: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return kept


def _with_prompt(model: Any) -> dict[str, torch.Tensor]:
    """The prompt and what else is trained; peft's own function would copy to the CPU, which meta tensors cannot."""
    config = model.active_peft_config
    layers = config.num_layers * 2 if config.peft_type == "PREFIX_TUNING" else 1  # keys and values of every layer
    encoder = {id(parameter) for parameter in model.prompt_encoder.parameters()}
    like = next(model.prompt_encoder.parameters())
    kept = {"prompt_embeddings": like.new_empty(config.num_virtual_tokens, layers * config.token_dim)}
    for name, parameter in trainable(model).items():
        if id(parameter) not in encoder:
            kept[name.replace(".modules_to_save.default", "")] = parameter.detach()
    return kept


def file_size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of the safetensors file that holds `tensors`: eight, a JSON header padded to eight, and the data.

    Source: the format in the safetensors README; the widest numbers come first, then the names decide.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _short(tensor.dtype), "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + end


def _short(dtype: torch.dtype) -> str:
    """As the header names it: torch.float32 → F32, torch.bfloat16 → BF16, torch.int64 → I64."""
    name = str(dtype).removeprefix("torch.")
    kind = next(short for long, short in _KINDS.items() if name.startswith(long))
    return kind + "".join(filter(str.isdigit, name))


_KINDS = {"bfloat": "BF", "float": "F", "uint": "U", "int": "I", "bool": "BOOL", "complex": "C"}
