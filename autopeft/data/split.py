"""How rows are split: held out, thinned, and into folds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from autopeft.common.exceptions import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Fold:
    """Positions of the rows that train and of those that validate, int64 each."""

    train: np.ndarray
    validation: np.ndarray


def split(labels: np.ndarray, groups: Sequence[str] | None, folds: int, seed: int) -> list[Fold]:
    """Stratified folds; with `groups` no group is on both sides of a fold."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    parts = splitter(n_splits=folds, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels, groups)
    return [Fold(np.asarray(train), np.asarray(validation)) for train, validation in parts]


def _thin(frame: pd.DataFrame, max_rows: int | None, seed: int) -> pd.DataFrame:
    """At most `max_rows`, each label keeping its share; whole groups where there are groups. Always shuffled."""
    generator = np.random.default_rng(seed)
    order = frame.iloc[generator.permutation(len(frame))]
    if max_rows is None or len(frame) <= max_rows:
        return order
    if "group" in frame:
        sizes = order.groupby("group", sort=False)["label"].transform("size")
        first = ~order["group"].duplicated()
        kept = order["group"][first][sizes[first].cumsum() <= max_rows]
        return order[order["group"].isin(kept)]
    # Rows interleaved by their rank inside their label: any prefix holds every label in proportion.
    rank = order.groupby("label").cumcount()
    share = (rank + 0.5) / order.groupby("label")["label"].transform("size")
    return order.iloc[np.argsort(share.to_numpy(), kind="stable")[:max_rows]]


def _hold_out(frame: pd.DataFrame, fraction: float, seed: int, source: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    if "group" in frame:
        parts = max(2, round(1 / fraction))
        if frame["group"].nunique() < parts:
            raise DataError(
                f"{source}: holding out {fraction:.0%} needs at least {parts} groups, "
                f"but there are {frame['group'].nunique()}; raise `test_fraction` in [data]."
            )
        if (most := frame["label"].value_counts().max()) < parts:
            raise DataError(
                f"{source}: holding out {fraction:.0%} needs at least {parts} rows of some label, but the most that "
                f"one has is {most}; give more rows, or raise `test_fraction` in [data]."
            )
        splitter = StratifiedGroupKFold(n_splits=parts, shuffle=True, random_state=seed)
        kept, held = next(splitter.split(frame, frame["label"], frame["group"]))
        return frame.iloc[kept], frame.iloc[held]
    labels = frame["label"].nunique()
    size = round(fraction * len(frame))
    for count, what, change in ((size, "held out", "larger"), (len(frame) - size, "left to train on", "smaller")):
        if count < labels:
            raise DataError(
                f"{source}: the {count} rows {what} must be at least as many as the {labels} labels; "
                f"give more rows (`max_rows`) or a {change} `test_fraction` in [data]."
            )
    kept, held = train_test_split(frame, test_size=size, stratify=frame["label"], random_state=seed)
    return kept, held


def _without_repeats(train: pd.DataFrame, test: pd.DataFrame, inputs: list[str], notes: list[str]) -> pd.DataFrame:
    held_out = pd.MultiIndex.from_frame(test[inputs])
    leaked = pd.MultiIndex.from_frame(train[inputs]).isin(held_out)
    repeated = train.duplicated(inputs).to_numpy() & ~leaked
    for count, what in (
        (int(leaked.sum()), "repeat a held-out row"),
        (int(repeated.sum()), "repeat another training row"),
    ):
        if count:
            notes.append(
                f"{count} training row{'s' * (count > 1)} that {what} {'were' if count > 1 else 'was'} left out."
            )
    return train[~leaked & ~repeated]
