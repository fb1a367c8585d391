"""Language models by their configurations, without weights: some ship with autopeft, others come from a folder.

The shipped sizes are those of litgpt's `config.py` (Apache-2.0), read in November 2026; a test compares their parameter
counts with published ones.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autopeft.common.exceptions import ModelError, nearest
from autopeft.models.files import reading

if TYPE_CHECKING:
    from torch import nn

SHIPPED = "architectures.json"


def names() -> list[str]:
    """Names of the models whose configurations ship."""
    return [*_shipped()]


def _shipped() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(files("autopeft.models").joinpath(SHIPPED).read_text("utf-8"))
    return found


def config_of(reference: str) -> Any:
    """The configuration of a shipped model, or of a folder with a `config.json`.

    Raises:
        ModelError: it is neither.
    """
    from transformers import AutoConfig

    shipped = _shipped()
    if reference.lower() in shipped:
        return AutoConfig.for_model(**shipped[reference.lower()])
    if Path(reference).exists():
        with reading(f"`--model-config`: {reference} has no configuration that can be read"):
            return AutoConfig.from_pretrained(reference, local_files_only=True, trust_remote_code=False)
    raise ModelError(
        f'`--model-config` must be a folder with a config.json, or one of the shipped models, but got "{reference}"; '
        f"{nearest(reference, shipped)}"
    )


def skeleton(config: Any, auto_class: str) -> nn.Module:
    """The model of this configuration with every tensor on the meta device: it takes no memory.

    Raises:
        ModelError: transformers has no such class for it.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        with torch.device("meta"):
            made: nn.Module = getattr(transformers, auto_class).from_config(config)
    except ValueError as error:
        raise ModelError(f"{config.model_type} must be a model of {auto_class}, but is not: {error}") from None
    return made.requires_grad_(False).eval()
