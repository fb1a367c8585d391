"""The value of a dimension, and one point of a search space."""

from __future__ import annotations

from collections.abc import Mapping

ParamValue = bool | int | float | str


Params = Mapping[str, ParamValue]
"""One point of a space: dimension name (no prefix) → value; inactive dimensions are absent."""
