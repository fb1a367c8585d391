"""Data files of rows with several labels, mutated: one sentence, or rows whose labels are texts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from autopeft.common.exceptions import UserInputError
from autopeft.data.load import load_rows
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from tests.fuzz import test_data as files

if TYPE_CHECKING:
    from pathlib import Path

CASES, SLICE, PART = 500, 40, 20
"""Mutated files in all; how many `make test` runs; how many a test has."""

KIND = "multi-label-classification"


def rows_of(draw: random.Random, suffix: str) -> list[dict[str, Any]]:
    """As `files.make_rows` draws them, with labels as lists, as texts, or in columns."""
    rows = files.make_rows(draw, suffix)
    for place, row in enumerate(rows):
        if row.get("label") in ("a", "b"):
            labels = [name for name in "abc" if draw.random() < 0.5] + ["d"] * (place == 3)
            row["label"] = labels if suffix in ("json", "jsonl") and draw.random() < 0.5 else ";".join(labels)
        row["one"], row["two"] = (draw.choice(("0", "1", "true", "False")) for _ in range(2))
    if draw.random() < 0.2:
        draw.choice(rows)[draw.choice(("one", "two", "label"))] = draw.choice((*files.VALUES, "[a", "[1]", "['a']"))
    return rows


def check(case: int, folder: Path) -> bool:
    """Read one file; whether rows came out."""
    draw = random.Random(case)
    suffix = files.SUFFIXES[case % len(files.SUFFIXES)]
    path = folder / f"rows{case}.{suffix}"
    path.write_bytes(files.mutate(files.as_bytes(rows_of(draw, suffix), suffix, draw), draw))
    data: dict[str, Any] = {"train": path.name}
    data |= {"max_rows": 10} if draw.random() < 0.3 else {}
    data |= {"group": "group"} if draw.random() < 0.3 else {}
    options = {"label_columns": ["one", "two"]} if draw.random() < 0.3 else {"delimiter": ";"}
    content = {"name": "s", "model": {"name_or_path": "m"}, "task": {"kind": KIND, **options}, "data": data}
    told = ""
    with files.limit(files.SECONDS):
        try:
            found = load_rows(StudySpec.from_mapping(content, folder=folder), find_task(KIND).configured(options))
        except UserInputError as error:
            told = str(error)
    assert len(told) < files.LONGEST, told
    if told:
        return False
    for labels in (*found.train["label"], *found.test["label"]):
        assert labels == tuple(sorted({*labels}))
        assert all(isinstance(label, str) and label.strip() for label in labels)
        if suffix in ("json", "jsonl", "parquet"):
            assert not [label for label in labels if files.MARK in label and label != files.MARK], labels
    return True


@pytest.mark.parametrize("first", range(0, SLICE, PART))
def test_some_mutated_files_are_rows_or_one_sentence(first, tmp_path):
    files.check_part(first, PART, lambda case: check(case, tmp_path))


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(SLICE, CASES, PART))
def test_mutated_files_are_rows_or_one_sentence(first, tmp_path):
    files.check_part(first, PART, lambda case: check(case, tmp_path))
