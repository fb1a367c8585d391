"""What builds on the adapters of earlier winners, for autopeft: AdapterFusion, and new adapters stacked on them."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_fusion.method import Fusion
from autopeft_fusion.stacked import Stacked

__all__ = ["Fusion", "Stacked", "register_methods"]


@hookimpl
def register_methods() -> list[PeftMethod]:
    """AdapterFusion, and stacked adapters."""
    return [Fusion(), Stacked()]
