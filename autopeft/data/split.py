"""Splits rows: holds some out, thins them, and makes folds."""

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
    """Positions of the training rows and of the validation rows, int64 each."""

    train: np.ndarray
    validation: np.ndarray


def split(
    rows: int, strata: Sequence[object] | None, groups: Sequence[str] | None, folds: int, seed: int
) -> list[Fold]:
    """Folds in which every stratum keeps its share; with `groups` no group is on both sides of a fold."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    if strata is None:
        splitter = KFold if groups is None else GroupKFold
    else:
        splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    parts = splitter(n_splits=folds, shuffle=True, random_state=seed).split(np.zeros(rows), strata, groups)
    return [Fold(np.asarray(train), np.asarray(validation)) for train, validation in parts]


def thin(rows: pd.DataFrame, strata: pd.Series | None, max_rows: int | None, seed: int) -> pd.DataFrame:
    """At most `max_rows`, in which each stratum keeps its share; whole groups, if there are any. Always shuffled."""
    generator = np.random.default_rng(seed)
    places = generator.permutation(len(rows))
    order = rows.iloc[places]
    if max_rows is None or len(rows) <= max_rows:
        return order
    if "group" in rows:
        sizes = order.groupby("group", sort=False)["group"].transform("size")
        first = ~order["group"].duplicated()
        kept = order["group"][first][sizes[first].cumsum() <= max_rows]
        return order[order["group"].isin(kept)]
    if strata is None:
        return order.iloc[:max_rows]
    # Rows are interleaved by their rank in their stratum: in any prefix every stratum keeps its share.
    own = strata.iloc[places]
    rank = own.groupby(own).cumcount()
    share = (rank + 0.5) / own.groupby(own).transform("size")
    return order.iloc[np.argsort(share.to_numpy(), kind="stable")[:max_rows]]


def hold_out(
    rows: pd.DataFrame, strata: pd.Series | None, fraction: float, seed: int, source: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows left to train on, and those held out before anything else looks at them.

    Raises:
        DataError: there are too few rows or groups.
    """
    if "group" in rows:
        return _hold_out_groups(rows, strata, fraction, seed, source)
    from sklearn.model_selection import train_test_split

    least = 1 if strata is None else strata.nunique()
    size = round(fraction * len(rows))
    for count, what, change in ((size, "held out", "larger"), (len(rows) - size, "left to train on", "smaller")):
        if count < least:
            raise DataError(
                f"{source}: there must be at least as many rows {what} as labels, but there are {count} rows and "
                f"{least} labels; give more rows (`max_rows`) or a {change} `test_fraction` in [data]."
            )
    kept, held = train_test_split(rows, test_size=size, stratify=strata, random_state=seed)
    return kept, held


def _hold_out_groups(
    rows: pd.DataFrame, strata: pd.Series | None, fraction: float, seed: int, source: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    parts = max(2, round(1 / fraction))
    if rows["group"].nunique() < parts:
        raise DataError(
            f"{source}: holding out {fraction:.0%} needs at least {parts} groups, "
            f"but there are {rows['group'].nunique()}; raise `test_fraction` in [data]."
        )
    if strata is not None and (most := strata.value_counts().max()) < parts:
        raise DataError(
            f"{source}: holding out {fraction:.0%} needs at least {parts} rows of some label, but no label has more "
            f"than {most}; give more rows, or raise `test_fraction` in [data]."
        )
    splitter = GroupKFold if strata is None else StratifiedGroupKFold
    made = splitter(n_splits=parts, shuffle=True, random_state=seed)
    kept, held = next(made.split(rows, strata, rows["group"]))
    return rows.iloc[kept], rows.iloc[held]


def check_groups(train: pd.DataFrame, folds: int, source: str) -> None:
    """Check that every fold has its own groups or rows.

    Raises:
        DataError: there are too few.
    """
    groups = train["group"].nunique() if "group" in train else folds
    if groups < folds:
        raise DataError(
            f"{source}: every fold needs its own groups, but the training rows have {groups} groups for {folds} folds; "
            "lower `folds` in [validation], or give rows with more groups."
        )
    if len(train) < folds:
        raise DataError(
            f"{source}: every fold needs at least one row, but {len(train)} rows are left to train on for {folds} "
            "folds; lower `folds` in [validation], or give more rows."
        )


def without_repeats(
    train: pd.DataFrame, test: pd.DataFrame, inputs: list[str], notes: list[str], *, taught: Sequence[str] = ()
) -> pd.DataFrame:
    """The training rows whose inputs do not repeat a held-out row's or an earlier training row's.

    Args:
        train: the training rows.
        test: the held-out rows.
        inputs: the input columns.
        notes: gets a sentence for each reason why rows are left out, with their number, and how many contradict the
            rows that they repeat.
        taught: a training row is left out only if it repeats an earlier one in these columns too: if an input has
            several right answers, each is worth training on. Rows of another group are left out in any case, since
            they may end up on the other side of a fold.
    """
    own, others = _keys(train, inputs), _keys(test, inputs)
    leaked = own.isin(others)
    repeated = _keys(train, [*inputs, *taught]).duplicated()
    if taught and "group" in train:
        first = train["group"].groupby(own.factorize()[0]).transform("first")
        repeated |= (train["group"] != first).to_numpy()
    repeated &= ~leaked
    # Several right answers to an input do not contradict each other.
    learnt = [] if taught else [str(name) for name in train if name not in (*inputs, "group")]
    whole = _keys(train, [*inputs, *learnt])
    for out, same, what in (
        (leaked, whole.isin(_keys(test, [*inputs, *learnt])), "repeat a held-out row"),
        (repeated, whole.duplicated(), "repeat another training row"),
    ):
        count, other = int(out.sum()), int((out & ~same).sum())
        if count:
            but = f", {other} of them with another {' or '.join(f'`{name}`' for name in learnt)}" * bool(other)
            notes.append(
                f"{count} training row{'s' * (count > 1)} that {what} {'were' if count > 1 else 'was'} left out{but}."
            )
    return train[~leaked & ~repeated]


def together(rows: pd.DataFrame, inputs: list[str], notes: list[str]) -> pd.DataFrame:
    """The rows, with a column `group` if some have equal inputs: these stay on one side of every split."""
    keys = _keys(rows, inputs)
    codes, unique = keys.factorize()
    if len(unique) == len(rows):
        return rows
    shared = int(keys.duplicated(keep=False).sum())
    notes.append(
        f"{shared} rows share their {' and '.join(f'`{name}`' for name in inputs)} with others; {len(unique)} are "
        "different. Rows that share it stay on one side of every split."
    )
    return rows.assign(group=codes.astype(str))


def _keys(rows: pd.DataFrame, columns: list[str]) -> pd.MultiIndex:
    """The keys that distinguish rows; for an image, its content."""
    return pd.MultiIndex.from_frame(rows[columns].map(str))
