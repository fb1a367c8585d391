"""VeRA for autopeft, through peft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_vera.method import Vera


@hookimpl
def register_methods() -> list[PeftMethod]:
    """VeRA."""
    return [Vera()]
