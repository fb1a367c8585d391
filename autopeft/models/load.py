"""Load a base model: once per process, frozen, and with what a study needs to know about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn

from autopeft.common.seeds import seeded
from autopeft.models import files, hub_files, missing_weights, original_weights, quantization
from autopeft.models.architecture import describe
from autopeft.models.base import BaseModel
from autopeft.models.readers import READERS
from autopeft.models.size_limit import size_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.methods.contract import ModelSpec


class Asked(Protocol):
    """What loading needs of the kind of task; see `tasks.Task`."""

    @property
    def kind(self) -> str:
        """Its name in study files."""

    @property
    def auto_class(self) -> str:
        """The transformers class that adds the head."""

    @property
    def new_head(self) -> bool:
        """Whether the head of that class is trained from scratch."""

    @property
    def peft_task_type(self) -> str | None:
        """Peft's name for it."""

    @property
    def processor(self) -> str:
        """The transformers class of the processor that reads rows."""

    def adapt(self, model: Any) -> None:
        """Change a loaded model before methods see it."""


def load_base(
    location: Path | str,
    task: Asked,
    *,
    seed: int,
    trust_remote_code: bool = False,
    config_overrides: Mapping[str, Any] | None = None,
    quantized: str = quantization.NONE,
    compute: torch.dtype = torch.float32,
    revision: str | None = None,
) -> BaseModel:
    """Load a pretrained model with a freshly drawn head, frozen, in float32 on the CPU; on the GPU if `quantized`.

    Args:
        location: a local folder (then nothing leaves the machine) or a hub id.
        task: the kind of task.
        seed: of the head's initial values.
        trust_remote_code: run code that comes with the model; off unless the study file says so.
        config_overrides: such as ``id2label``.
        quantized: "none", or "8bit" or "4bit" for the linear maps of the transformer layers.
        compute: precision in which a quantized model's products are computed.
        revision: commit of a model on the hub; default: the newest.

    Raises:
        ModelError: there is no model, this class cannot load it, its weights are not safetensors or lack a part of the
            base model, or this machine cannot quantize.
    """
    import transformers

    if quantized != quantization.NONE:
        quantization.require(quantized)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    local, kind, reader = isinstance(location, Path), getattr(transformers, task.auto_class), READERS[task.processor]
    origin: dict[str, Any] = {"local_files_only": local, "trust_remote_code": trust_remote_code}
    origin |= {} if revision is None else {"revision": revision}
    options: dict[str, Any] = {**origin, **(config_overrides or {})}
    with files.reading(f"[model] name_or_path: {location} cannot be loaded as {task.auto_class}"):
        folder = location if isinstance(location, Path) else hub_files.fetch(location, revision)
        extent = files.examine(folder)
        processor = reader.load(location, **origin)
        special: dict[str, Any] = {"dtype": torch.float32}
        dense = None
        with seeded(seed), size_limit(extent.tensors, extent.size):
            if quantized != quantization.NONE:
                dense = _dense(transformers.AutoConfig.from_pretrained(location, **options), kind, trust_remote_code)
                plain = describe(dense, task.kind, task.peft_task_type, new_head=task.new_head)
                skip = quantization.left_alone(dense, plain)
                special = {"dtype": compute, "quantization_config": quantization.config(quantized, skip, compute)}
                torch.manual_seed(seed)  # building `dense` drew random numbers
            module, report = _pretrained(kind, location, {**special, **options})
        reader.prepare(processor, *filter(None, (module, dense)))
        module.requires_grad_(False)
        if dense is not None:
            quantization.keep_rest_in_float32(module)
            quantization.settle(module)
        spec, notes = _judged(module, dense, report, task, location)
        if dense is not None:
            original_weights.mark(module, spec := replace(spec, quantization=quantized), folder)
    return BaseModel(module, processor, spec, dense, notes)


def _judged(
    module: nn.Module, dense: nn.Module | None, report: Mapping[str, Any], task: Asked, location: Path | str
) -> tuple[ModelSpec, tuple[str, ...]]:
    """The description of a model for methods, with notes on parts drawn at random; the task adapts the model too."""
    whole = module if dense is None else dense  # a packed weight does not have its original shape or size
    drawn = missing_weights.judge(whole, report, location, new_head=task.new_head)
    spec = describe(whole, task.kind, task.peft_task_type, drawn.missing, new_head=task.new_head)
    for model in filter(None, (module, dense)):
        task.adapt(model)
    return spec, drawn.notes


def read_config(location: Path | str, *, trust_remote_code: bool = False, revision: str | None = None) -> Any:
    """The configuration of a pretrained model; see `load_base`.

    Raises:
        ModelError: no configuration can be read.
    """
    from transformers import AutoConfig

    local = isinstance(location, Path)
    with files.reading(f"[model] name_or_path: {location} has no configuration that can be read"):
        files.examine(location if isinstance(location, Path) else hub_files.fetch(location, revision))
        return AutoConfig.from_pretrained(
            location, local_files_only=local, trust_remote_code=trust_remote_code, revision=revision or "main"
        )


def _pretrained(kind: Any, location: Path | str, options: Mapping[str, Any]) -> tuple[nn.Module, Mapping[str, Any]]:
    """The model, and transformers' report on its weights."""
    found: tuple[nn.Module, Mapping[str, Any]] = kind.from_pretrained(
        location,
        use_safetensors=True,  # no pickle from strangers
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # a head of another size is drawn again; other differences are refused
        **options,
    )
    return found


def _dense(config: Any, kind: Any, trust_remote_code: bool) -> nn.Module:
    """The model of this configuration on the meta device, frozen."""
    with torch.device("meta"):
        module = kind.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    return cast("nn.Module", module.requires_grad_(False))
