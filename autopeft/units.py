"""Sizes and durations as people write them: "2 GiB", "1%", "500k", "1h30m"."""

from __future__ import annotations

import re

BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_bytes(text: str | int) -> int:
    """Bytes: "2 GiB" → 2147483648; a bare number is bytes already.

    Raises:
        ValueError: not a size.
    """
    return round(_scaled(text, {"": 1, **BYTES}, 'a size such as "2 GiB" or "500 MB"'))


def parse_count(text: str | int) -> int | float:
    """A count or a share: "2M" → 2000000 (an int); "1%" → 0.01 (a float, a share of the base model).

    Raises:
        ValueError: neither.
    """
    expected = 'a number such as 200000 or "2M", or a share of the base model such as "1%"'
    if isinstance(text, str) and text.strip().endswith("%"):
        return _scaled(text.strip()[:-1], {"": 1}, expected) / 100
    count = _scaled(text, COUNTS, expected)
    if count != round(count):
        raise ValueError(f"must be {expected}, but got {text!r}")
    return round(count)


def parse_seconds(text: str | float) -> float:
    """Seconds: "1h30m" → 5400.0; a bare number is seconds already.

    Raises:
        ValueError: not a duration.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    written = text.lower() if isinstance(text, str) else ""  # TOML has times of day, too
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", written)
    if not parts or re.sub(r"[\d.\s]+[smhd]", "", written).strip():
        raise ValueError(f'must be a duration such as "10m", "1h30m" or a number of seconds, but got "{text}"')
    return float(sum(float(number) * SECONDS[unit] for number, unit in parts))


def parse_workers(count: int | str) -> int | str:
    """A number of workers, or "auto".

    Raises:
        ValueError: neither.
    """
    if count == "auto" or (isinstance(count, int) and not isinstance(count, bool) and count >= 1):
        return count
    raise ValueError(f'must be a whole number, at least 1, or "auto", but got {count!r}')


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


def _scaled(text: str | float, units: dict[str, int], expected: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower().replace("_", ""))
    if isinstance(text, bool) or not match or match[2] not in units:
        raise ValueError(f"must be {expected}, but got {text!r}")
    return float(match[1]) * units[match[2]]
