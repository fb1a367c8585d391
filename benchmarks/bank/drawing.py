"""The rows of the bank's tasks: which of them train in which size, which are tested, and the study file of it all.

Each task has one test set for all sizes. Training rows of a smaller size are among those of a larger one. Nothing that
is tested is trained on: a training row whose text is that of any test row, up to case, addresses, names and signs, is
left out (`key`).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
from sources import SEED, SIZES, TEST_ROWS

from autopeft.common.files import whole
from autopeft.data.split import thin
from autopeft.tasks.registry import find_task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sources import BankTask, Folders, Parts

FOLDS = 3


def key(row: Mapping[str, Any]) -> str:
    """A row's input, such that those with one key are nearly the same text."""
    texts = [str(row[name]) for name in ("text", "text_pair") if name in row] or [" ".join(row["tokens"])]
    plain = [re.sub(r"https?://\S+|www\.\S+|@\w+|&\w+;", " ", text.casefold()) for text in texts]
    return " | ".join(" ".join(word for word in re.findall(r"[^\W_]+", text) if word != "rt") for text in plain)


def drawn(task: BankTask, folders: Folders) -> Parts:
    """All training rows that there are, in the order in which sizes take them, and the test rows.

    Any first rows hold every label in its share, as far as that can be. Test rows with a label that the smallest size
    does not teach are left out, of every size.
    """
    kind = find_task(task.kind).configured(task.options)
    train, test = (part.assign(key=[key(row) for row in part.to_dict("records")]) for part in task.read(folders))
    train, test = (part[part["key"] != ""].drop_duplicates("key") for part in (train, test))
    train = train[~train["key"].isin(test["key"])]
    columns = [name for name in ("text", "text_pair", "label", "tokens", "tags") if name in train]
    # an order by rank within the stratum needs a limit, if only that of all rows but one
    train = thin(train, kind.strata(train), min(len(train) - 1, rows_of("large")), SEED)[columns]
    first = train[: rows_of(min(task.sizes, key=SIZES.__getitem__))]
    known = {name for own in taught(first) for name in own}
    test = test[[own <= known for own in taught(test)]]
    return train, thin(test, kind.strata(test), TEST_ROWS, SEED)[columns]


def rows_of(size: str) -> int:
    """The training rows of all folds together."""
    return SIZES[size] * FOLDS // (FOLDS - 1)


def taught(rows: pd.DataFrame) -> list[set[str]]:
    """The labels of each row; of numbers none. Tags count by their type."""
    if "tags" in rows:
        return [{tag.partition("-")[2] for tag in tags} for tags in rows["tags"]]
    if isinstance(rows["label"].iloc[0], tuple):
        return [{*labels} for labels in rows["label"]]
    numbers = pd.to_numeric(rows["label"], errors="coerce").notna().all()
    return [set() if numbers else {label} for label in rows["label"]]


def prepared(task: BankTask, size: str, folders: Folders, out: Path) -> tuple[Path, Path]:
    """The files of the rows of that size, training and test; they are written where they are not there yet."""
    train, test = out / f"{task.name}.{size}.train.jsonl", out / f"{task.name}.test.jsonl"
    if not (train.is_file() and test.is_file()):
        out.mkdir(parents=True, exist_ok=True)
        parts = drawn(task, folders)
        for path, rows in ((train, parts[0][: rows_of(size)]), (test, parts[1])):
            joined = (
                rows["label"].map("|".join) if "label" in rows and isinstance(rows["label"].iloc[0], tuple) else None
            )
            with whole(path) as draft:
                draft.write_text("".join(
                    json.dumps(row, ensure_ascii=False) + "\n"
                    for row in (rows if joined is None else rows.assign(label=joined)).to_dict("records")
                ), encoding="utf-8")  # fmt: skip
    return train, test


def content(
    task: BankTask, rows: tuple[Path, Path], model: str, precision: str, seed: int, out: Path
) -> dict[str, Any]:
    """A study file of the task: what a live study must have to be compared with the bank."""
    named = {name: name for name in json.loads(rows[1].read_text(encoding="utf-8").partition("\n")[0])}
    return {
        "name": rows[0].name.removesuffix(".train.jsonl"),
        "seed": seed,
        "output": str(out / "study"),
        "model": {"name_or_path": model, "dtype": precision, "max_length": task.max_length, "trunk_cache": False},
        "task": {"kind": task.kind, **task.options},
        "data": {"train": str(rows[0].resolve()), "test": str(rows[1].resolve()), **named},
        "validation": {"folds": FOLDS, "packing": "on", **({"metric": task.metric} if task.metric else {})},
    }
