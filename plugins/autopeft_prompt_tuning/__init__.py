"""Prompt tuning for autopeft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_prompt_tuning.method import PromptTuning


@hookimpl
def register_methods() -> list[PeftMethod]:
    """Prompt tuning."""
    return [PromptTuning()]
