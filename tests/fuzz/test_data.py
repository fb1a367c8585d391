"""Data files, mutated: whatever a file holds, one sentence or rows that are texts, and never an object's `str()`."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import random
import signal
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopeft.common.exceptions import UserInputError
from autopeft.data.cells import Texts
from autopeft.data.load import load_rows
from autopeft.data.table import read_table
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CASES, SLICE, PART = 1000, 60, 20
"""Mutated files in all; how many `make test` runs; how many a test has."""

SECONDS = 10
LONGEST = 1200
"""Characters of a message, two paths in it included."""

MARK = "hidden"
"""Stands inside of objects alone: a text that has it was made of an object."""

SUFFIXES = ("csv", "tsv", "jsonl", "json", "parquet")

OBJECTS = ([MARK], {"a": MARK}, [[MARK]], {"a": [{"b": MARK}]}, [MARK, None], {MARK: 1})
VALUES = (
    None, "", " ", "\u2028", "\x00", "a\x00b", "\x1c", "NA", "nan", '"', "a,b\tc", "a\r\nb", "\ufeffx", "\U0001f600",
    "\u202e", True, 0, -1, 2**63, 2**64, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "x" * 200_000, "=1+1",
)  # fmt: skip

TYPES = (
    (pa.list_(pa.string()), [MARK]), (pa.large_list(pa.string()), [MARK]), (pa.list_(pa.string(), 1), [MARK]),
    (pa.struct([("a", pa.string())]), {"a": MARK}), (pa.map_(pa.string(), pa.string()), [(MARK, MARK)]),
    (pa.binary(), MARK.encode() + b"\xff"), (pa.large_binary(), MARK.encode() + b"\xff"),
    (pa.binary(7), MARK.encode() + b"\xff"), (pa.binary_view(), MARK.encode() + b"\xff"),
    (pa.string(), "b"), (pa.large_string(), "b"), (pa.string_view(), "b"), (pa.binary(), b"b"), (pa.null(), None),
    (pa.dictionary(pa.int8(), pa.string()), "b"), (pa.decimal128(5, 2), Decimal("1.25")),
    (pa.decimal256(50, 2), Decimal("1.25")), (pa.bool_(), True), (pa.int8(), 1), (pa.uint64(), 2**64 - 1),
    (pa.float16(), 0.5), (pa.float32(), 0.1), (pa.float64(), float("inf")), (pa.date32(), datetime.date(1, 1, 1)),
    (pa.date64(), datetime.date(2020, 1, 1)), (pa.timestamp("ns"), 1), (pa.timestamp("s"), 2**40),
    (pa.timestamp("us", "Europe/Berlin"), 2**50), (pa.duration("ms"), 5), (pa.time32("s"), 5), (pa.time64("ns"), 5),
)  # fmt: skip

NOISE = (
    b"\x00", b'"', b"'", b"\n", b"\r", b",", b"\t", b"\\", b"{", b"}", b"[", b"]", b":", b"\xff", b"\xfe",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\xff\xfe\x00\x00", b"\xed\xa0\x80", b"\\ud800", b"9" * 5000, b"1e400",
    b"[" * 100_000,
    b'{"a":' * 50_000, b"NaN", b"null", b"x" * 100_000, b"\x1b[31m",
)  # fmt: skip

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "cp037", "shift_jis")
NAMED = ("utf-8", "utf-16", "cp1252", "ascii", "utf-7", "unicode_escape", "idna", "hex", "no-such", "a\0b")


class HangError(BaseException):
    """Reading took too long; no `Exception`, which would pass for an error of the file."""


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise HangError

    signals = (signal.SIGPROF, signal.SIGALRM)
    before = [signal.signal(number, stop) for number in signals]
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of the processor, which other tests may hold for long
    signal.alarm(12 * seconds)  # and of the clock, as what waits takes none
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def make_rows(draw: random.Random, suffix: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"text": f"text {place}", "label": "ab"[place % 2], "group": f"g{place % 8}"} for place in range(24)
    ]
    for _ in range(draw.choice((0, 0, 1, 3))):
        odd = draw.choice(OBJECTS if suffix in ("json", "jsonl") and draw.random() < 0.5 else VALUES)
        draw.choice(rows)[draw.choice(("text", "text", "text", "label", "group"))] = odd
    if draw.random() < 0.15:
        name = draw.choice(("text", "label", "group"))
        new = draw.choice((None, "Text", "x" * 100_000, "", "text.a", "\x1b[2J"))
        for row in rows:
            value = row.pop(name)
            if new is not None:
                row[new] = value
    return rows


def as_parquet(rows: list[dict[str, Any]], draw: random.Random) -> bytes:
    columns: dict[str, Any] = {}
    for name in rows[0] | rows[-1]:
        cells = [row.get(name) for row in rows]
        columns[name] = pa.array([None if cell is None else str(cell) for cell in cells])
    if draw.random() < 0.6:
        kind, value = draw.choice(TYPES)
        name = draw.choice(("text", "label", "group"))
        columns[name] = pa.array([value if draw.random() < 0.9 else None for _ in rows], kind)
    if draw.random() < 0.1:  # texts that are none
        raw = pa.array([b"t%d" % place + (b"\xff" if draw.random() < 0.1 else b"") for place in range(len(rows))])
        columns["text"] = pa.Array.from_buffers(pa.string(), len(rows), raw.buffers())
    names, arrays = list(columns), list(columns.values())
    if draw.random() < 0.1:
        place = draw.randrange(len(names))
        names.append(names[place])
        arrays.append(arrays[place])
    out = io.BytesIO()
    codec = draw.choice(("snappy", "gzip", "zstd", "none"))
    pq.write_table(pa.Table.from_arrays(arrays, names), out, compression=codec, row_group_size=draw.choice((3, 1000)))
    return out.getvalue()


def as_bytes(rows: list[dict[str, Any]], suffix: str, draw: random.Random) -> bytes:
    if suffix == "parquet":
        return as_parquet(rows, draw)
    if suffix in ("json", "jsonl"):
        lines = [json.dumps(row, ensure_ascii=draw.random() < 0.5) for row in rows]
        text = "\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]"
    else:
        out = io.StringIO(newline="")
        delimiter = "," if suffix == "csv" or draw.random() < 0.1 else "\t"
        writer = csv.DictWriter(out, [*rows[0]], delimiter=delimiter, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        text = out.getvalue()
    return text.encode(draw.choice(ENCODINGS) if draw.random() < 0.15 else "utf-8", "replace")


def mutate(content: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice((0, 0, 0, 1, 2, 5))):
        place = draw.randrange(len(content) + 1)
        match draw.randrange(4):
            case 0 if content:
                place = min(place, len(content) - 1)
                content = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
            case 1:
                content = content[:place]
            case 2:
                content = content[:place] + draw.choice(NOISE) + content[place:]
            case _:
                content = content[:place] + content[place + draw.randrange(50) :]
    return content


def make(path: Path, suffix: str, draw: random.Random) -> None:
    match draw.randrange(60):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(path)
        case 3:
            path.write_bytes(b"")
        case 4:
            path.symlink_to("/dev/zero")
        case _:
            path.write_bytes(mutate(as_bytes(make_rows(draw, suffix), suffix, draw), draw))


def check(case: int, folder: Path) -> bool:
    """Read one file, both ways; whether rows came out."""
    draw = random.Random(case)
    suffix = SUFFIXES[case % len(SUFFIXES)]
    path = folder / f"rows{case}.{suffix}"
    make(path, suffix, draw)
    data: dict[str, Any] = {"train": path.name, "encoding": draw.choice(NAMED) if draw.random() < 0.1 else None}
    data |= {"max_rows": 10} if draw.random() < 0.3 else {}
    data |= {"group": "group"} if draw.random() < 0.3 else {}
    content = {"name": "s", "model": {"name_or_path": "m"}, "task": {"kind": "t"}, "data": data}
    texts: list[str] = []
    told: list[str] = []
    with limit(SECONDS):
        try:
            found = load_rows(StudySpec.from_mapping(content, folder=folder), find_task("text-classification"))
            texts += [str(cell) for part in (found.train, found.test) for cell in part.to_numpy().ravel()]
        except UserInputError as error:
            told.append(str(error))
    with limit(SECONDS):
        try:
            reader = Texts(blank=True)
            texts += reader.of("text", read_table(path, ["text"])["text"])
            reader.check("the rows", {"text": "text"})
        except UserInputError as error:
            told.append(str(error))
    assert max(map(len, told), default=0) < LONGEST, told
    if suffix in ("json", "jsonl", "parquet"):
        assert not [text for text in texts if MARK in text], f"case {case}"
    return bool(texts)


def check_part(first: int, count: int, read: Callable[[int], bool]) -> None:
    """Some cases, each of which `read` reads and says whether rows came out."""
    rows = 0
    for case in range(first, first + count):
        try:
            rows += read(case)
        except BaseException as error:
            error.add_note(f"case {case}")
            raise
    assert 0 < rows < count  # else it tests one side alone


@pytest.mark.parametrize("first", range(0, SLICE, PART))
def test_some_mutated_files_are_rows_or_one_sentence(first, tmp_path):
    check_part(first, PART, lambda case: check(case, tmp_path))


@pytest.mark.fuzz
@pytest.mark.parametrize("first", range(SLICE, CASES, PART))
def test_mutated_files_are_rows_or_one_sentence(first, tmp_path):
    check_part(first, PART, lambda case: check(case, tmp_path))
