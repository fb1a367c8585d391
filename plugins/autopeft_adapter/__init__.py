"""Bottleneck adapters for autopeft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_adapter.method import Adapter

__all__ = ["Adapter", "register_methods"]


@hookimpl
def register_methods() -> list[PeftMethod]:
    """Bottleneck adapters."""
    return [Adapter()]
