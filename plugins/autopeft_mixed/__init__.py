"""Prefixes and adapters in one candidate, for autopeft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_mixed.method import Mixed

__all__ = ["Mixed", "register_methods"]


@hookimpl
def register_methods() -> list[PeftMethod]:
    """The mixture."""
    return [Mixed()]
