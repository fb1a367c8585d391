"""Rows in memory: which come to a study as they are, and how those are named that cannot."""

import json
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from autopeft.common.exceptions import DataError
from autopeft.data.in_memory import as_table, keep
from autopeft.data.load import StudyData, load_rows
from autopeft.tasks.registry import find_task
from autopeft.tuning import specify

LABELS = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})


def frame(**columns) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"t{i}" for i in range(20)], "label": ["a", "b"] * 10}).assign(**columns)


def texts(**cells) -> pd.Series:
    """Texts, but for some: place → cell."""
    found = pd.Series([f"t{i}" for i in range(20)], dtype=object)
    for place, cell in cells.items():
        found[int(place[1:])] = cell
    return found


def specified(folder, rows, test=None, **tables):
    content = {"name": "s", "output": str(folder), "model": {"name_or_path": "m"}}
    return specify({**content, "task": {"kind": "text-classification"}, **tables}, rows, test)


def read(folder, rows, test=None) -> StudyData:
    return load_rows(specified(folder, rows, test), find_task("text-classification"))


@pytest.mark.parametrize("form", ["torch", "numpy", "pandas", "arrow"])
def test_a_dataset_may_be_left_in_any_format(tmp_path, form):
    rows = datasets.Dataset.from_pandas(frame(label=[0, 1] * 10))
    expected = read(tmp_path, frame(label=[0, 1] * 10)).fingerprint
    assert read(tmp_path, rows.with_format(form)).fingerprint == expected
    halves = datasets.DatasetDict(train=rows.with_format(form, columns=["label"]), other=rows)
    assert read(tmp_path, halves).fingerprint == expected


def test_other_columns_of_a_frame_do_not_matter(tmp_path):
    odd = {
        "interval": pd.interval_range(0, 20),
        "complex": [1j] * 20,
        "sparse": pd.arrays.SparseArray([0] * 20),
        "object": [object()] * 20,
        7: [[1]] * 20,
    }
    rows = pd.concat(
        [frame(), pd.DataFrame(odd), pd.DataFrame({"twice": [1] * 20}), pd.DataFrame({"twice": [2] * 20})], axis=1
    )
    expected = specified(tmp_path, frame())
    assert specified(tmp_path, rows).data.train == expected.data.train
    assert read(tmp_path, rows).fingerprint == load_rows(expected, find_task("text-classification")).fingerprint
    assert pq.read_schema(expected.data.train).names == ["text", "label"]


def test_a_group_is_kept_with_the_named_columns(tmp_path):
    rows = frame(author=[f"p{i % 5}" for i in range(20)], other=[{}] * 20)
    spec = specified(tmp_path, {"train": rows, "group": "author"})
    assert pq.read_schema(spec.data.train).names == ["text", "label", "author"]


def test_named_columns_of_any_kind_are_the_texts_of_their_cells(tmp_path):
    expected = read(tmp_path, frame(label=[0, 1] * 10)).fingerprint
    for label in (
        pd.arrays.SparseArray([0, 1] * 10), pd.Categorical([0, 1] * 10), pd.array([0, 1] * 10, dtype="Int8"),
        np.array([0, 1] * 10, dtype=np.float32), [b"0", b"1"] * 10, ["0", "1"] * 10,
    ):  # fmt: skip
        assert read(tmp_path, frame(label=label)).fingerprint == expected


def test_whole_numbers_and_texts_of_them_are_kept_apart(tmp_path):
    one = read(tmp_path, frame(label=[1.0, 2.0] * 10))
    other = read(tmp_path, frame(label=["1.0", "2.0"] * 10))
    assert (one.labels, other.labels) == (("1", "2"), ("1.0", "2.0"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [["no", "yes"]] * 20}, r'row 1: every cell of the column "label" .* is a list \(such cells: 20\)'),
        ({"text": texts(_5={"a": 1})}, 'row 6: .*"text".* is a mapping'),
        ({"text": texts(_5=np.zeros(3))}, 'row 6: .*"text".* is an array'),
        ({"text": texts(_5={1, 2})}, 'row 6: .*"text".* is a set'),
        ({"text": texts(_5=1j)}, 'row 6: .*"text".* is a value of type "complex"'),
        ({"text": texts(_5=b"\xff")}, 'row 6: .*"text".* holds bytes that are not UTF-8'),
        ({"text": texts(_5="a \ud800")}, r'row 6: .*"text".* holds \\ud800, which is half a character'),
        ({"text": texts(_5=float("inf"))}, 'row 6: .*"text".* is the number inf'),
        ({"text": texts(_5=10**5000)}, 'row 6: .*"text".* is a whole number of thousands of digits'),
        ({"text": texts(_5=None)}, 'row 6: the column "text" must not be empty'),
        ({"text": texts(_5=pd.NA, _7=" ")}, r'row 6: the column "text" must not be empty, but it is \(in 2 rows'),
        ({"label": ["a"] * 19 + ["b"]}, 'row 20: every label must occur at least twice, but "b"'),
    ],
)  # fmt: skip
def test_an_error_names_the_argument_and_the_row(tmp_path, columns, words):
    rows = frame(**columns)
    for given in (rows, rows.to_dict(orient="records"), [*rows.itertuples(index=False, name=None)]):
        with pytest.raises(DataError, match=f"^the (frame|list) given as `data`, {words}") as error:
            read(tmp_path, given)
        assert "parquet" not in str(error.value)


def test_an_index_of_the_frames_own_is_named_too(tmp_path):
    rows = frame(text=texts(_5=None)).set_axis([f"id{i}" for i in range(20)])
    with pytest.raises(DataError, match=r"^the frame given as `data`, row 6 \(index 'id5'\): "):
        read(tmp_path, rows)
    with pytest.raises(DataError, match=r"^the frame given as `data`, row 3 \(index 5\): "):
        read(tmp_path, frame(text=texts(_5=None)).iloc[3:])


def test_test_rows_and_splits_are_named(tmp_path):
    with pytest.raises(DataError, match=r"^the frame given as `test`, row 2: "):
        read(tmp_path, frame(), frame(text=texts(_1=None)))
    with pytest.raises(DataError, match=r'^the frame given as `test`, row 1: the label "c" does not occur'):
        read(tmp_path, frame(), frame(text=texts(_0="other"), label="c"))
    train = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(20)], "label": [0, 1] * 10}, LABELS)
    test = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [-1, -1]}, LABELS)
    rule = r'^the data set given as `data`, split "test", row 1: .*"label".* is -1, which means no label'
    with pytest.raises(DataError, match=rule):
        read(tmp_path, datasets.DatasetDict(train=train, test=test))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "list given as `data` must hold at least one row"),
        ([{"text": "a"}, ("b", "c")], "list given as `data`, row 2, must be a dict like the first"),
        ([("a", "b"), "c"], r"list given as `data`, row 2, must be a dict or a tuple \(text, label\), but is 'c'"),
        ([("x" * 100_000,)], "list given as `data`, row 1, must be"),
        (np.zeros(3), "value given as `data`: rows must be a pandas frame.*ndarray"),
        (frame()[["text"]], 'frame given as `data` has no column "label"; known: text'),
        (pd.concat([frame(), frame()[["text"]]], axis=1), 'frame given as `data` must have the column "text" once'),
    ],
)
def test_what_is_no_table_is_one_short_sentence(tmp_path, rows, words):
    with pytest.raises(DataError, match=words) as error:
        read(tmp_path, rows)
    assert len(str(error.value)) < 300
    assert not Path(tmp_path / "rows").exists()


def test_the_same_rows_under_another_name_are_named_anew(tmp_path):
    kept = specified(tmp_path, frame()).data.train
    again = specified(tmp_path, datasets.DatasetDict(train=datasets.Dataset.from_pandas(frame()))).data.train
    assert kept == again
    assert pq.read_schema(kept).metadata[b"autopeft.called"] == b'the data set given as `data`, split "train"'


def test_a_cell_of_which_several_things_are_read_is_kept_whole(tmp_path):
    said = [{"role": "user", "content": "a fox"}, {"role": "assistant", "content": "runs"}]
    task = find_task("causal-lm")
    names = dict.fromkeys((*task.inputs, *task.taught_columns), "messages")
    rows = as_table(pd.DataFrame({"messages": [said, json.dumps(said), np.array(said, dtype=object)]}), [], "`data`")
    kept = pd.read_parquet(keep(rows, names, tmp_path, task.columns))["messages"]
    assert [json.loads(cell) for cell in kept] == [said] * 3
    with pytest.raises(DataError, match="row 1: every cell of the column"):
        keep(as_table([{"messages": said[:1] * 2}], [], "`data`"), names, tmp_path, task.columns)
