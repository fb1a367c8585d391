"""The settings without which a method cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopeft.methods.contract import PeftMethod


def needed_settings(method: PeftMethod) -> list[str]:
    """The names of the settings that a method still needs before it can be used."""
    if method.options is not None or method.facts():
        return []
    fields = getattr(method.Options, "model_fields", {})
    return [name for name, field in fields.items() if field.is_required()]


def ready(method: PeftMethod) -> PeftMethod:
    """A method to try out: with its example's settings if it needs any."""
    return method.example() if needed_settings(method) else method
