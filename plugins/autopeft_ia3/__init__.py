"""(IA)³ for autopeft, through peft."""

from __future__ import annotations

from autopeft import PeftMethod, hookimpl
from autopeft_ia3.method import Ia3


@hookimpl
def register_methods() -> list[PeftMethod]:
    """(IA)³."""
    return [Ia3()]
