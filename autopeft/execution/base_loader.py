"""Loads a study's base model, which it may need several times."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from autopeft.common.locate import locate
from autopeft.models import digest, hub_files
from autopeft.models.load import load_base
from autopeft.models.quantization import NONE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from autopeft.models.base import BaseModel
    from autopeft.models.device import Device
    from autopeft.study.file import StudySpec
    from autopeft.tasks.contract import Task


def commit_of(spec: StudySpec, location: Path | str) -> str | None:
    """The commit of a base model on the hub, if it is there and known."""
    return hub_files.commit_of(location, spec.model.revision) if isinstance(location, str) else None


def base_loader(
    spec: StudySpec, labels: tuple[str, ...], device: Device, *, quantized: bool
) -> tuple[Callable[[Task], BaseModel], str]:
    """A function that loads the study's base model, anew each time, and the model's identity."""
    location = locate(spec.model.name_or_path, spec.folder)
    commit = commit_of(spec, location)
    identity = digest.of(location, commit)

    def load(task: Task) -> BaseModel:
        base = load_base(
            location,
            task,
            seed=spec.seed,
            trust_remote_code=spec.model.trust_remote_code,
            config_overrides=task.config(labels),
            quantized=spec.model.quantization if quantized else NONE,
            compute=device.autocast or torch.float32,
            revision=commit or spec.model.revision,
        )
        base = replace(base, spec=replace(base.spec, digest=identity))
        if not quantized:  # here; methods see the GPU that is planned for
            base = replace(base, spec=replace(base.spec, quantization=spec.model.quantization))
        if device.autocast:
            base.lower(device.autocast, keep=spec.model.dtype == "auto" and quantized and not base.dense)
        return base

    return load, identity
