"""A fusion in the format of the `adapters` library, whose models compute the same with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autopeft import Support
from autopeft_fusion.fused import Fused, fusions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from autopeft import ModelSpec, Params
    from autopeft_fusion.sources import Source

MODEL_TYPES = ("bert", "electra", "roberta")
"""Model types for which that library keeps adapters beside the projection they follow, as autopeft does."""

VERSION = "adapters.1.3.0"
"""The version of the library whose format this is."""

MODULES = {"down": "adapter_down.0", "up": "adapter_up"}
"""Its names of an adapter's two maps."""


def write(model: nn.Module, params: Params, spec: ModelSpec, sources: Sequence[Source], folder: Path) -> Support:
    """Write what `load_adapter_setup(folder, set_active=True, use_safetensors=True)` of that library reads.

    The folder gets the head, the setup, a folder for each adapter, and one for the fusion, with all adapters' names.
    """
    if spec.model_type not in MODEL_TYPES:
        return Support(
            f"that is known to work for the model types {', '.join(MODEL_TYPES)}, not for {spec.model_type}."
        )
    found = fusions(model)
    order = _order(found)
    if not order:
        return Support("that library needs a source with an adapter in every fused layer, and there is none.")
    config: Any = model.config
    about = {
        "hidden_size": spec.hidden_size,
        "model_class": spec.architecture,
        "model_name": config.name_or_path,
        "model_type": spec.model_type,
        "version": VERSION,
    }
    for place in order:
        content = {**about, "config": _adapter_config(place, sources[place], found, spec), "name": sources[place].name}
        _write(folder / sources[place].name, "adapter", "adapter", _adapter(place, sources[place].name, found), content)
    together = ",".join(sources[place].name for place in order)
    fused = {
        f"{_owner(name)}.adapter_fusion_layer.{together}.{part}.{key}": tensor
        for name, module in found.items()
        for part in ("query", "key", "value")
        if getattr(module, part) is not None
        for key, tensor in getattr(module, part).state_dict().items()
    }
    content = {**about, "config": _fusion_config(params), "name": together}
    _write(folder / together, "adapter_fusion", "model_adapter_fusion", fused, content)
    head = {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if any(f"{name}.".startswith(f"{part}.") for part in spec.head)
    }
    labels = {"label2id": config.label2id, "num_labels": config.num_labels}
    _write(folder, "head", "model_head", head, {**about, **labels, "config": None, "name": None})
    children = [{"type": "single", "children": [sources[place].name]} for place in order]
    setup = {"adapter_setup": {"type": "Fuse", "children": children}, "head_setup": True, "version": VERSION}
    (folder / "adapter_setup.json").write_text(json.dumps(setup, indent=2), encoding="utf-8")
    return Support()


def _order(found: Mapping[str, Fused]) -> list[int]:
    """The numbers of the sources; the last one, whose settings count there, has an adapter in every fusion."""
    used = sorted({place for module in found.values() for place in module.places})
    everywhere = [place for place in used if all(place in module.places for module in found.values())]
    return [*(place for place in used if place != everywhere[-1]), everywhere[-1]] if everywhere else []


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _adapter(place: int, name: str, found: Mapping[str, Fused]) -> dict[str, Tensor]:
    """The tensors of one adapter."""
    tensors = {}
    for site, module in found.items():
        if place in module.places:
            for key, tensor in module.sources[module.places.index(place)].state_dict().items():
                part, _, leaf = key.partition(".")
                tensors[f"{_owner(site)}.adapters.{name}.{MODULES[part]}.{leaf}"] = tensor
    return tensors


def _adapter_config(place: int, source: Source, found: Mapping[str, Fused], spec: ModelSpec) -> dict[str, object]:
    """The library's `BnConfig`: the adapter is before the residual sum and the layer norm, and has its own residual."""
    layers = {linear.layer for linear in spec.linears if linear.name in found and place in found[linear.name].places}
    return {
        "mh_adapter": source.placement == "houlsby",
        "output_adapter": True,
        "is_parallel": False,
        "scaling": 1.0,
        "reduction_factor": source.reduction_factor,
        "non_linearity": source.non_linearity,
        "leave_out": [layer for layer in range(len(spec.layers)) if layer not in layers],
        "original_ln_before": False,
        "original_ln_after": True,
        "residual_before_ln": True,
        "adapter_residual_before_ln": False,
        "ln_before": False,
        "ln_after": False,
    }


def _fusion_config(params: Params) -> dict[str, object]:
    """The library's `AdapterFusionConfig`."""
    dynamic = params["values"] == "dynamic"
    return {
        "key": True,
        "query": True,
        "value": dynamic,
        "query_before_ln": False,
        "regularization": dynamic,
        "residual_before": False,
        "temperature": False,
        "value_before_softmax": True,
        "value_initialized": dynamic,
        "dropout_prob": float(params["dropout"]) or None,
    }


def _write(folder: Path, config: str, weights: str, tensors: Mapping[str, Tensor], content: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / f"{weights}.safetensors")
    (folder / f"{config}_config.json").write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
