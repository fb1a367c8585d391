"""LoRA and DoRA for autopeft, through peft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_lora.method import Dora, Lora


@hookimpl
def register_methods() -> list[PeftMethod]:
    """LoRA and DoRA."""
    return [Lora(), Dora()]
