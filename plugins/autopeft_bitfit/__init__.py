"""BitFit for autopeft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_bitfit.method import BitFit


@hookimpl
def register_methods() -> list[PeftMethod]:
    """BitFit."""
    return [BitFit()]
