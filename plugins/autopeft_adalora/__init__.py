"""AdaLoRA for autopeft, through peft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_adalora.method import AdaLora


@hookimpl
def register_methods() -> list[PeftMethod]:
    """AdaLoRA."""
    return [AdaLora()]
