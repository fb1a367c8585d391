"""Prefix-tuning for autopeft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_prefix_tuning.method import PrefixTuning

__all__ = ["PrefixTuning", "register_methods"]


@hookimpl
def register_methods() -> list[PeftMethod]:
    """Prefix-tuning."""
    return [PrefixTuning()]
