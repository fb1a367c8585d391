"""LoRA and DoRA for autopeft, through peft, and LoRAs of earlier winners merged into one."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_lora.merged import Merged
from autopeft_lora.method import Dora, Lora

__all__ = ["Dora", "Lora", "Merged", "register_methods"]


@hookimpl
def register_methods() -> list[PeftMethod]:
    """LoRA, DoRA, and merged LoRAs."""
    return [Lora(), Dora(), Merged()]
