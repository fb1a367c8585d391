"""The columns of a table, told from its beginning, are those that reading all of it gives."""

import json

import pandas as pd
import pytest

from autopeft.common.exceptions import DataError
from autopeft.data.header import READ, header
from autopeft.data.table import open_table

LONG = "w " * (READ // 2)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("plain.csv", b"text,label\na,b\n"),
        ("spaces.csv", b"\n text , label\na,b\n"),
        ("quotes.csv", b'"a ""text""\nin two lines","label"\na,b\n'),
        ("mark.csv", b"\xef\xbb\xbftext,label\na,b\n"),
        ("wide.csv", "text,label\na,b\n".encode("utf-16")),
        ("latin.csv", "t\xe9xt,label\na,b\n".encode("cp1252")),
        ("long.csv", f"text,label\n{LONG},b\n{LONG},b\n".encode()),
        ("tabs.tsv", b"text\tlabel\na\tb\n"),
        ("rows.jsonl", b'{"text": "a"}\n\n{"text": "b", "label": 1}\n'),
    ],
)
def test_it_is_what_reading_all_gives(tmp_path, name, raw):
    path = tmp_path / name
    path.write_bytes(raw)
    assert header(path) == list(open_table(path).names)


def test_of_parquet_too(tmp_path):
    pd.DataFrame({"text": ["a"], "label": [1]}).to_parquet(tmp_path / "rows.parquet")
    assert header(tmp_path / "rows.parquet") == ["text", "label"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("open.csv", 'a,"b\n1,2\n'),
        ("long.csv", f"{LONG}{LONG},label\na,b\n"),
        ("long.jsonl", "\n".join([json.dumps({"text": LONG})] * 3)),
        ("bad.jsonl", "{"),
        ("words.conll", "a B-X\n"),
        ("rows.json", "[]"),
    ],
)
def test_what_cannot_be_told_from_the_beginning_is_left_to_the_reading(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert header(tmp_path / name) is None


def test_another_format_is_refused_as_by_reading(tmp_path):
    (tmp_path / "rows.doc").write_text("x")
    with pytest.raises(DataError, match="must end in one of"):
        header(tmp_path / "rows.doc")
