"""Classification metrics by scikit-learn's names. All are scores: more is better."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from autopeft.common.exceptions import SpecError, brief, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

AVERAGES = ("macro", "micro", "weighted")
ALIASES = {"matthews": "matthews_corrcoef"}


def names() -> tuple[str, ...]:
    """The metrics a study file may name."""
    averaged = (f"{metric}_{average}" for metric in ("f1", "precision", "recall") for average in AVERAGES)
    return ("accuracy", "balanced_accuracy", "cohen_kappa", "matthews_corrcoef", *ALIASES, *averaged)


def scorer(name: str) -> Callable[[np.ndarray, np.ndarray], float]:
    """The function `(labels [rows], predictions [rows]) -> score` behind a metric's name.

    Raises:
        SpecError: an unknown name.
    """
    from sklearn import metrics

    if name not in names():
        raise SpecError(f'`metric` in [validation] is "{brief(name)}", which is not known; {nearest(name, names())}')
    name = ALIASES.get(name, name)
    stem, _, average = name.rpartition("_")
    if average in AVERAGES:
        function = partial(getattr(metrics, f"{stem}_score"), average=average, zero_division=0)
    else:
        function = getattr(metrics, name if name == "matthews_corrcoef" else f"{name}_score")

    def score(labels: np.ndarray, predictions: np.ndarray) -> float:
        found = float(function(labels, predictions))
        return 0.0 if math.isnan(found) else found  # Cohen's kappa where all rows have, and are given, the same label

    return score
