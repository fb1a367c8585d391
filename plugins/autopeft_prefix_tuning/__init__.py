"""Prefix-tuning for autopeft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_prefix_tuning.method import PrefixTuning


@hookimpl
def register_methods() -> list[PeftMethod]:
    """Prefix-tuning."""
    return [PrefixTuning()]
