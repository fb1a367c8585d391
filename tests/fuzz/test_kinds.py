"""Rows of every kind of task, mutated within their cells: rows that can be encoded, or one sentence."""

from __future__ import annotations

import copy
import csv
import json
import random
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from autopeft.common.exceptions import UserInputError
from autopeft.data.load import load_rows
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task, task_kinds
from autopeft.testing.task_case import TaskCase
from tests.fuzz.test_data import LONGEST, OBJECTS, SECONDS, VALUES, check_part, limit

if TYPE_CHECKING:
    from pathlib import Path

CASES, SLICE, PART = 500, 20, 20
"""Mutated files of a kind; how many of them `make test` runs; how many a test has."""

KINDS = sorted(kind for kind, task in task_kinds().items() if task.processor == "AutoTokenizer")
SUFFIXES = ("jsonl", "json", "csv", "parquet")
ODD = [value for value in (*OBJECTS, *VALUES) if value not in (10**400,)]
"""Of numbers that parquet does not know there are tests of files."""


def example(kind: str) -> list[dict[str, Any]]:
    rows = json.loads(find_task(kind).example().to_json(orient="records"))
    return [copy.deepcopy(row) for row in rows for _ in range(2)]


def mutate(cell: Any, draw: random.Random) -> Any:
    """Something in the place of a cell, or of something in it."""
    if isinstance(cell, list | dict) and cell and draw.random() < 0.7:
        changed = copy.copy(cell)
        places = [*range(len(cell))] if isinstance(cell, list) else [*cell]
        place = draw.choice(places)
        match draw.randrange(4):
            case 0:
                del changed[place]
            case 1 if isinstance(changed, list):
                changed.insert(place, copy.deepcopy(cell[draw.choice(places)]))
            case _:
                changed[place] = mutate(cell[place], draw)
        return changed
    if isinstance(cell, int) and not isinstance(cell, bool) and draw.random() < 0.7:
        return cell + draw.choice((-1000, -1, 1, 1000, 2**31, 2**63))
    if isinstance(cell, str) and draw.random() < 0.5:
        place = draw.randrange(len(cell) + 1)
        return cell[:place] + draw.choice(("", " ", "\u00e9", "\U0001f600", "B-", "\x00", "]", '"')) + cell[place + 1 :]
    return copy.deepcopy(draw.choice(ODD))


def write(rows: list[dict[str, Any]], path: Path) -> None:
    if path.suffix in (".json", ".jsonl"):
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
        return
    plain = [
        {key: cell if isinstance(cell, str) or cell is None else json.dumps(cell) for key, cell in row.items()}
        for row in rows
    ]
    if path.suffix == ".parquet":
        pd.DataFrame(plain).to_parquet(path)
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]], extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(plain)


def check(kind: str, case: int, folder: Path) -> bool:
    """Read and encode one file; whether that went well."""
    draw = random.Random(f"{kind} {case}")
    rows = example(kind)
    for place, row in enumerate(rows):  # or half of them would be left out as repeats
        key = next(key for key in row if key in ("text", "tokens", "question", "context", "source"))
        cell = row[key]
        row[key] = [*cell[:-1], f"{cell[-1]}{place}"] if isinstance(cell, list) else f"{cell} {place}"
    for _ in range(draw.choice((0, 1, 1, 2, 5))):
        row = draw.choice(rows)
        key = draw.choice([*row])
        row[key] = mutate(row[key], draw)
        if draw.random() < 0.05:
            del row[key]
    path = folder / f"rows{case}.{SUFFIXES[case % len(SUFFIXES)]}"
    write(rows, path)
    columns = {key: key for row in rows for key in row}
    data = {"train": path.name, **columns, "test_fraction": 0.5}
    content = {"name": "s", "model": {"name_or_path": "m"}, "task": {"kind": kind}, "data": data}
    content |= {"validation": {"folds": 2}}
    with limit(SECONDS):
        try:
            encode(StudySpec.from_mapping(content, folder=folder), find_task(kind).taking(columns))
        except UserInputError as error:
            told = str(error)
        else:
            return True
    assert len(told) < LONGEST
    assert "\n" not in told
    return False


def encode(spec: StudySpec, task: Any) -> None:
    found = load_rows(spec, task)
    case = TaskCase(find_task(task.kind))
    reader = case.reader
    made = task.knowing({**case.task.facts, **found.facts}, found.labels)  # some facts are told by the model
    for part in (found.train, found.test):
        encoded = made.encode(part, reader, found.labels)
        encoded.batch(encoded.everything[:3])
        made.written_truths(encoded.truths, found.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_some_mutated_rows_are_encoded_or_one_sentence(kind, tmp_path):
    check_part(0, PART, lambda case: check(kind, case, tmp_path))


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", range(SLICE, CASES, PART))
def test_mutated_rows_are_encoded_or_one_sentence(kind, first, tmp_path):
    check_part(first, PART, lambda case: check(kind, case, tmp_path))
