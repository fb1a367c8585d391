"""LoRA for autopeft, through peft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_lora.method import Lora


@hookimpl
def register_methods() -> list[PeftMethod]:
    """LoRA."""
    return [Lora()]
