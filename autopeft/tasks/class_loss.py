"""Cross-entropy of rows with one label, with remedies for classes of unequal size."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from autopeft.common.bounds import Bounds
from autopeft.common.exceptions import SpecError, brief, nearest, quoted
from autopeft.methods.dimensions import Categorical, Float
from autopeft.methods.search_space import SearchSpace
from autopeft.study.sections import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import torch

    from autopeft.common.params import ParamValue

COUNTS = "class_counts"
"""The fact that holds the training rows of each label, as JSON."""


class ClassOptions(Section):
    """Settings of the loss, which [search] may search over, and of the decision between two labels."""

    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """"balanced" weighs the loss of a row by rows / (labels · rows of its label), as scikit-learn does; or a weight for
    each label, 1 if none is given."""
    focal_gamma: float = Field(0.0, ge=0, le=10)
    """Weighs the loss of a row by (1 - p)^gamma, where p is its label's probability (Lin et al. 2017); 0: no weight."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the taught probability that is spread over all labels (Szegedy et al. 2016)."""
    positive_label: str | None = None
    """With two labels, the one that `f1`, `precision`, `recall`, `average_precision` and the threshold are for.
    Default: the last of the alphabet."""
    threshold: Literal["auto", "half"] | Annotated[float, Field(gt=0, lt=1)] = "auto"
    """With two labels, the probability from which on the positive one is given. "auto" chooses it on the validation
    folds if the metric is F1, precision, recall, balanced accuracy, a kappa or a correlation, which a half rarely
    suits."""


def search_space(options: Any) -> SearchSpace:
    """The settings as dimensions, with what is set as their defaults."""
    space = {
        "focal_gamma": Float(low=0.0, high=3.0, default=float(options.focal_gamma), bounds=Bounds(least=0, most=10)),
        "label_smoothing": Float(
            low=0.0, high=0.3, default=float(options.label_smoothing), bounds=Bounds(least=0, most=0.99)
        ),
    }
    spaces: dict[str, Any] = {name: _reaching(dimension) for name, dimension in space.items()}
    if isinstance(options.class_weights, str):
        spaces["class_weights"] = Categorical(choices=("none", "balanced"), default=options.class_weights)
    return SearchSpace(spaces)


def _reaching(dimension: Float) -> Float:
    """The dimension with its default in its range."""
    return replace(dimension, high=max(dimension.high, dimension.default))


def check(options: Any, train: pd.DataFrame) -> None:
    """Make sure that weights are above zero and for known labels, and that settings for two labels have two.

    Raises:
        SpecError: that is not so.
    """
    known = set(train["label"])
    threshold = getattr(options, "threshold", "half")
    if isinstance(threshold, float) and len(known) > 2:
        raise SpecError(
            f"`threshold` in [task] is for two labels, but the rows have {len(known)}; remove it: the most probable "
            "label is given."
        )
    positive = getattr(options, "positive_label", None)
    if positive is not None and (positive not in known or len(known) > 2):
        raise SpecError(
            f'`positive_label` in [task] must be one of two labels, but it is "{brief(positive)}", and the rows have '
            f"{', '.join(map(quoted, sorted(known)[:5]))}{', …' * (len(known) > 5)}."
        )
    given = getattr(options, "class_weights", "none")
    if isinstance(given, str):
        return
    for label, weight in given.items():
        if label not in known:
            raise SpecError(
                f'`class_weights` in [task] names "{brief(label)}", which no training row has; {nearest(label, known)}'
            )
        if not 0 < weight < float("inf"):
            raise SpecError(f'`class_weights` in [task] must be above zero, but "{brief(label)}" has {weight:g}.')


def counts(train: pd.DataFrame) -> dict[str, ParamValue]:
    """The fact that weights are computed from."""
    found = train["label"].value_counts().sort_index()
    return {COUNTS: json.dumps({str(label): int(count) for label, count in found.items()}, ensure_ascii=False)}


def weights(options: Any, facts: Mapping[str, ParamValue], names: Sequence[str]) -> list[float] | None:
    """The weight of each label; None if all have the same."""
    given = getattr(options, "class_weights", "none")
    if given == "none":
        return None
    if not isinstance(given, str):
        return [float(given.get(name, 1.0)) for name in names]
    rows = json.loads(str(facts[COUNTS]))
    whole = sum(rows.values())
    return [whole / (len(rows) * rows[name]) if name in rows else 1.0 for name in names]


def loss(logits: torch.Tensor, labels: torch.Tensor, options: Any, by_label: Sequence[float] | None) -> torch.Tensor:
    """Mean cross-entropy of `logits` `[rows, labels]` in float32, with the weights and smoothing of the options.

    It is divided by the number of rows, not by their weights, so that the loss of a batch is the mean of its parts'.
    """
    from torch.nn.functional import cross_entropy

    gamma, smoothing = (getattr(options, name, 0.0) for name in ("focal_gamma", "label_smoothing"))
    if by_label is None and not gamma:
        return cross_entropy(logits, labels, label_smoothing=smoothing)
    each = cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    if gamma:
        probability = logits.softmax(dim=-1).gather(-1, labels[:, None]).squeeze(-1)
        each = each * (1 - probability).clamp(min=0) ** gamma
    if by_label is not None:
        each = each * logits.new_tensor(by_label)[labels]
    return each.mean()
