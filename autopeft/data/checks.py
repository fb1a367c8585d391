"""What the rows of a study must be for it to begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.common.exceptions import DataError, nearest, quoted

if TYPE_CHECKING:
    import pandas as pd


def _check_labels(frame: pd.DataFrame, source: str) -> None:
    counts = frame["label"].value_counts()
    if len(counts) < 2:
        raise DataError(f"{source}: there must be at least two labels, but every row has {quoted(counts.index[0])}.")
    if counts.iloc[-1] < 2:
        label = counts.index[-1]
        row = frame.index[frame["label"] == label][0]
        raise DataError(
            f"{source}, row {row}: every label must occur at least twice, but {quoted(label)} occurs once; "
            "add rows of that label or remove it."
        )


def _check_folds(train: pd.DataFrame, folds: int, source: str) -> None:
    groups = train["group"].nunique() if "group" in train else folds
    if groups < folds:
        raise DataError(
            f"{source}: every fold needs groups of its own, but the training rows have {groups} for {folds} folds; "
            "lower `folds` in [validation], or give rows of more groups."
        )
    most = train["label"].value_counts().max()
    if most < folds:
        raise DataError(
            f"{source}: some label must have a training row for each of the {folds} folds, but the most that one has "
            f"is {most}; lower `folds` in [validation], or give more rows."
        )


def _check_known(test: pd.DataFrame, known: set[str], source: str) -> None:
    unseen = test[~test["label"].isin(known)]
    if len(unseen):
        label = unseen["label"].iloc[0]
        raise DataError(
            f"{source}, row {unseen.index[0]}: the label {quoted(label)} does not occur in the training rows; "
            f"{nearest(label, known)} Add training rows of that label, or remove the {len(unseen)} test rows like it."
        )
