"""AdapterFusion for autopeft: attention over the adapters of earlier winners."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_fusion.method import Fusion

__all__ = ["Fusion", "register_methods"]


@hookimpl
def register_methods() -> list[PeftMethod]:
    """AdapterFusion."""
    return [Fusion()]
