"""Adapters in the format of the `adapters` library, whose models compute the same with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autopeft import ModelSpec, Params, Support, layer_groups
from autopeft_adapter.adapter import ParallelAdapter, SequentialAdapter

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

MODEL_TYPES = ("bert", "electra", "roberta")
"""Model types for which that library keeps adapters beside the projection they follow, as autopeft does."""

NAME = "autopeft"
VERSION = "adapters.1.3.0"
"""The version of the library whose format this is."""

MODULES = {"down": "adapter_down.0", "up": "adapter_up"}
"""Its names of the two maps."""


def write(model: nn.Module, params: Params, spec: ModelSpec, folder: Path) -> Support:
    """Write the adapters and the head; `load_adapter(folder, use_safetensors=True)` of that library reads them."""
    from safetensors.torch import save_file

    if spec.model_type not in MODEL_TYPES:
        return Support(
            f"that is known to work for the model types {', '.join(MODEL_TYPES)}, not for {spec.model_type}."
        )
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, SequentialAdapter | ParallelAdapter):
            owner = name.rpartition(".")[0]
            for key, tensor in module.adapter.state_dict().items():
                part, _, leaf = key.partition(".")
                tensors[f"{owner}.adapters.{NAME}.{MODULES[part]}.{leaf}"] = tensor
    head = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if any(f"{name}.".startswith(f"{part}.") for part in spec.head)
    }
    config: Any = model.config
    about = {
        "hidden_size": spec.hidden_size,
        "model_class": spec.architecture,
        "model_name": config.name_or_path,
        "model_type": spec.model_type,
        "version": VERSION,
    }
    labels = {"label2id": config.label2id, "num_labels": config.num_labels}
    for part, kept, content in (
        ("adapter", tensors, {**about, "config": _config(params, spec), "name": NAME}),
        ("head", head, {**about, **labels, "config": None, "name": None}),
    ):
        weights = "adapter" if part == "adapter" else "model_head"
        save_file({name: tensor.cpu().contiguous() for name, tensor in kept.items()}, folder / f"{weights}.safetensors")
        (folder / f"{part}_config.json").write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
    return Support()


def _config(params: Params, spec: ModelSpec) -> dict[str, object]:
    """The library's `BnConfig`: the adapter is before the residual sum and the layer norm, and has its own residual."""
    placement = params["placement"]
    placed = {linear.layer for linear in spec.linears}  # without layers whose adapters were dropped after training
    layers = placed.intersection(layer_groups(len(spec.layers))[str(params["layers"])])
    return {
        "mh_adapter": placement == "houlsby",
        "output_adapter": True,
        "is_parallel": placement == "parallel",
        "scaling": 1.0,
        "reduction_factor": int(params["reduction_factor"]),
        "non_linearity": params["non_linearity"],
        "leave_out": [layer for layer in range(len(spec.layers)) if layer not in layers],
        "original_ln_before": False,
        "original_ln_after": True,
        "residual_before_ln": True,
        "adapter_residual_before_ln": False,
        "ln_before": False,
        "ln_after": False,
    }
