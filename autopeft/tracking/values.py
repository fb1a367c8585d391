"""Values in the form and length that MLflow accepts, without secrets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from autopeft.common.address import public

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_PARAM, LONGEST_TAG, LONGEST_DESCRIPTION = 6000, 8000, 5000
"""Most characters that MLflow keeps."""


def now() -> int:
    """The time in milliseconds, as in MLflow."""
    return time.time_ns() // 10**6  # noqa: TID251  # MLflow shows it


def metrics(values: Mapping[str, float | None], step: int = 0) -> list[tuple[str, float, int, int]]:
    """Points as name, value, time and step; without those that have no value."""
    at = now()
    return [(name, float(value), at, step) for name, value in values.items() if value is not None]


def params(values: Mapping[str, object]) -> dict[str, str]:
    """Params as texts; without those that have no value."""
    return {name: public(str(value))[:LONGEST_PARAM] for name, value in values.items() if value is not None}


def tags(**values: str) -> dict[str, str]:
    """Tags of a run or a model."""
    return {name: public(value)[:LONGEST_TAG] for name, value in values.items()}


def description(text: str) -> str:
    """Markdown about a model, cut to as many whole lines as MLflow keeps."""
    text, more = public(text), "\n\n…"
    if len(text) <= LONGEST_DESCRIPTION:
        return text
    most = LONGEST_DESCRIPTION - len(more)
    end = text.rfind("\n", 0, most)
    return text[: end if end > 0 else most] + more


def sentence(state: str, reason: str) -> str:
    """How a trial ended, as Markdown."""
    return f"**{state}**" + f": {reason}" * bool(reason)
