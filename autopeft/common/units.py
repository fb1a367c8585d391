"""Sizes and durations as people write them: "2 GiB", "1%", "500k", "1h30m"."""

from __future__ import annotations

import re

from autopeft.common.bounds import is_number
from autopeft.common.exceptions import shorten

BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

LARGEST, LONGEST, MOST_WORKERS, MOST_IN_COHORT = 10.0**15, 10.0**9, 1000, 64
"""The largest size and count, the longest time (30 years; timers take no more), the most workers, and candidates in one
pass."""

MOST_LAYERS = 10_000
"""More layers than any model has."""

LONGEST_TEXT = 100
"""Most characters of a size or a duration."""


def parse_bytes(text: str | int) -> int:
    """Bytes: "2 GiB" → 2147483648; a bare number is bytes already.

    Raises:
        ValueError: not a size.
    """
    expected = 'a size such as "2 GiB" or "500 MB"'
    return round(_within(_scaled(text, {"": 1, **BYTES}, expected), expected, text, LARGEST))


def parse_count(text: str | int) -> int | float:
    """A count or a share: "2M" → 2000000 (an int); "1%" → 0.01 (a float, a share of the base model).

    Raises:
        ValueError: neither.
    """
    expected = 'a number such as 200000 or "2M", or a share of the base model such as "1%"'
    if isinstance(text, str) and text.strip().endswith("%"):
        return _within(_scaled(text.strip()[:-1], {"": 1}, expected) / 100, expected, text, LARGEST)
    count = _scaled(text, COUNTS, expected)
    if _within(count, expected, text, LARGEST) != round(count):
        raise ValueError(f"must be {expected}, but got {shorten(text)}")
    return round(count)


def parse_seconds(text: str | float) -> float:
    """Seconds: "1h30m" → 5400.0; a bare number is seconds already.

    Raises:
        ValueError: not a duration.
    """
    expected = 'a duration such as "10m", "1h30m" or a number of seconds'
    if is_number(text):
        return _within(float(text), expected, text, LONGEST)
    written = text.lower() if isinstance(text, str) and len(text) <= LONGEST_TEXT else ""
    if not re.fullmatch(r"(\s*\d+(\.\d+)?\s*[smhd])+\s*", written):
        raise ValueError(f"must be {expected}, but got {shorten(text)}")
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", written)
    return _within(sum(float(number) * SECONDS[unit] for number, unit in parts), expected, text, LONGEST)


def parse_workers(count: int | str) -> int | str:
    """A number of workers, or "auto".

    Raises:
        ValueError: neither.
    """
    return _count_or_auto(count, MOST_WORKERS)


def parse_cohort(count: int | str) -> int | str:
    """A number of candidates in one pass, or "auto".

    Raises:
        ValueError: neither.
    """
    return _count_or_auto(count, MOST_IN_COHORT)


def parse_layers(count: int | str) -> int | str:
    """A number of layers, or "auto".

    Raises:
        ValueError: neither.
    """
    return _count_or_auto(count, MOST_LAYERS, least=0)


def _count_or_auto(count: int | str, most: int, least: int = 1) -> int | str:
    if count == "auto" or (isinstance(count, int) and not isinstance(count, bool) and least <= count <= most):
        return count
    raise ValueError(f'must be a whole number, from {least} to {most}, or "auto", but got {shorten(count)}')


def format_bytes(count: float) -> str:
    """A size to read: 1610612736 → "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """A duration to read: 5400 → "1 h 30 min", 75 → "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def format_estimate(seconds: float) -> str:
    """A duration that is only about right: 5.6 → "6 s", 75.2 → "1 min 15 s"."""
    return f"{seconds:.0f} s" if seconds < 59.5 else format_seconds(seconds)


def counted(count: int, noun: str) -> str:
    """A number of things: "1 trial", "1,200 rows"."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def _scaled(text: str | float, units: dict[str, int], expected: str) -> float:
    written = str(text) if is_number(text) else text if isinstance(text, str) and len(text) <= LONGEST_TEXT else ""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", written.strip().lower().replace("_", ""))
    if not match or match[2] not in units:
        raise ValueError(f"must be {expected}, but got {shorten(text)}")
    return float(match[1]) * units[match[2]]


def _within(number: float, expected: str, text: object, most: float) -> float:
    if number > most:
        raise ValueError(f"must be {expected}, and at most {most:g}, but got {shorten(text)}")
    return number
