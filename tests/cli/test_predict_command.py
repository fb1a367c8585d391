"""Rows answered by a saved winner: which columns are read, what stands beside the answers, and where they go."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from autopeft.cli.answer_names import AnswerNames
from autopeft.cli.stdin_lines import CHUNK, batches_of_stdin
from autopeft.common.exceptions import DataError, UserInputError
from autopeft.data.asked_rows import BLOCK, by_key, open_rows
from autopeft.tasks.column import Column
from autopeft.winner.named_rows import keyed
from tests.conftest import autopeft, autopeft_here, tiny_rows, trained_winner, write_tiny_study

NAMES = {"text": "message", "label": "queue"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """Where the winner `lora` is, of a table that calls its columns otherwise."""
    folder = tmp_path_factory.mktemp("renamed")
    study = write_tiny_study(folder, tiny_model)
    study.write_text(study.read_text().replace('"rows.csv"', '"rows.csv"\ntext = "message"\nlabel = "queue"'))
    tiny_rows().rename(columns=NAMES).assign(text="of no use", id=range(1, 61)).to_csv(folder / "rows.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trained_winner(study, "lora")
    return folder


@pytest.fixture(scope="module")
def winner(folder):
    from autopeft.winner import winner as artifact

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return artifact.load(folder / "lora")


def ask(folder, *arguments):
    return autopeft_here("predict", "lora", *arguments, cwd=folder)


def test_the_table_of_training_is_answered_with_its_own_columns_beside(folder, winner):
    done = ask(folder, "--input", "rows.csv")
    assert done.returncode == 0, done.stderr
    found, given = pd.read_csv(io.StringIO(done.stdout)), pd.read_csv(folder / "rows.csv")
    assert [*found.columns] == ["message", "queue", "text", "id", "label", "probability"]
    pd.testing.assert_frame_equal(found[given.columns], given)
    assert found["label"].tolist() == winner.predict(given["message"].tolist())
    assert winner.input_names == {"text": "message"}


def test_rows_named_by_the_keys_are_answered_too(folder, winner):
    given = pd.read_csv(folder / "rows.csv")
    (folder / "keys.csv").write_text("text,other\nw1 w2,1.50\nw3,NA\n")
    done = ask(folder, "--input", "keys.csv")
    assert done.stdout.splitlines()[0] == "text,other,label,probability"
    assert [line.split(",")[1] for line in done.stdout.splitlines()[1:]] == ["1.50", "NA"]
    texts = given["message"].tolist()
    assert winner.predict(given[["message", "id"]]) == winner.predict(texts)
    assert winner.predict(given[["message"]].set_axis(["text"], axis=1)) == winner.predict(texts)
    with pytest.raises(DataError, match="columns of both names; remove the one"):
        winner.predict(given)
    with pytest.raises(DataError, match="with the columns message, but got no column 'message'"):
        winner.predict(given[["id"]])


def test_a_file_without_the_column_is_refused_before_the_model_is_loaded(folder):
    (folder / "other.csv").write_text("mesage\nw1\n")
    code = (
        "import sys; from autopeft.cli.app import main\n"
        "sys.argv = ['autopeft', 'predict', 'lora', '--input', 'other.csv']\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *{'torch', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout == "2\n"
    assert 'other.csv has no column "message"; did you mean "mesage"?' in done.stderr


def test_answers_are_called_predicted_where_the_input_has_columns_of_their_names(folder, winner):
    (folder / "both.csv").write_text("message,label\nw1 w2,no\n")
    done = ask(folder, "--input", "both.csv", "--json")
    (row,) = map(json.loads, done.stdout.splitlines())
    assert [*row] == ["message", "label", "predicted_label", "predicted_scores"]
    assert (row["label"], row["predicted_label"]) == ("no", winner.predict(["w1 w2"])[0])
    assert "already has a column `label`, so the answers are in `predicted_label` and `predicted_scores`" in done.stderr
    (folder / "again.csv").write_text("message,label,predicted_label\nw1 w2,no,no\n")
    done = ask(folder, "--input", "again.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'already has "predicted_label"; rename or remove that column' in done.stderr


def test_names_of_answers_are_the_same_for_all_rows():
    told = []
    names = AnswerNames(["a", "b"], told.append)
    assert names.of(["x", "a"]) == {"x": "predicted_x", "a": "predicted_a"}
    assert names.of(["x"]) == {"x": "predicted_x"}
    assert len(told) == 1
    plain = AnswerNames(["a"], told.append)
    assert plain.of(["x"]) == {"x": "x"}
    with pytest.raises(UserInputError, match='the input already has "a"'):
        plain.of(["x", "a"])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_answers_go_to_a_file_with_the_cells_as_they_were(folder, winner, suffix, tmp_path):
    rows = [
        {"message": 'w1\tw2, "w3"', "id": 7, "share": 0.1234567891, "tags": ["a", "b"], "none": None},
        {"message": "w4\nw5", "id": 8, "share": 2.0, "tags": [], "none": "x"},
    ]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)))
    output = tmp_path / f"answers.{suffix}"
    done = ask(folder, "--input", tmp_path / "some.jsonl", "--output", output)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert f"Answered 2 rows: {output}." in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"some.jsonl", output.name}
    if suffix == "parquet":
        found = pd.read_parquet(output).to_dict("records")
        found = [{**row, "tags": [*row["tags"]]} for row in found]
    elif suffix == "jsonl":
        found = [json.loads(line) for line in output.read_text().splitlines()]
        assert [sum(row["scores"].values()) for row in found] == pytest.approx([1, 1])
    else:
        table = pd.read_csv(output, sep="," if suffix == "csv" else "\t")
        found = table.assign(tags=table["tags"].map(json.loads)).to_dict("records")
    for row, given in zip(found, rows, strict=True):
        for name in ("message", "id", "share", "tags"):
            assert row[name] == given[name], name
        assert row["none"] == given["none"] or pd.isna(row["none"])
    assert [row["label"] for row in found] == winner.predict([row["message"] for row in rows])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "rows.csv", "--output", "rows.csv"], "is the --input file; name another"),
        (["--input", "keys.txt", "--output", "lora"], "must end in .csv, .tsv, .jsonl, .parquet"),
        (["--output", "nowhere/a.csv"], "in an existing folder, but nowhere does not exist"),
        (["--output", "a.csv", "--json"], "remove --json"),
        (["--input", "rows.csv", "--text", "w1"], "both are given; remove one"),
        (["--text", "w1", "--device", "gpu"], 'must be cpu, cuda or, for the second GPU, cuda:1, but is "gpu"'),
        (["--text", "w1", "--device", "cuda:7"], "does not exist: PyTorch finds"),
        (["--text", "w1", "--sheet", "one"], "--input is missing; give both"),
        (["--text", "w1", "--on-missing", "drop"], "--on-missing is for empty cells of the --input file"),
        (["--input", "nowhere.csv"], "nowhere.csv does not exist; give the path"),
    ],
)
def test_what_cannot_be_asked_is_told_in_a_sentence(folder, arguments, words):
    before = (folder / "rows.csv").read_bytes()
    done = ask(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "rows.csv").read_bytes() == before


def test_a_file_that_could_not_be_answered_leaves_none_behind(folder, tmp_path):
    (tmp_path / "some.jsonl").write_text('{"message": "w1"}\n{"message": null}\n')
    done = ask(folder, "--input", tmp_path / "some.jsonl", "--output", tmp_path / "out.csv")
    assert done.returncode == 2
    assert 'some.jsonl, row 2: the column "message" must not be empty' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["some.jsonl"]


def test_rows_with_empty_cells_are_left_out_on_request(folder, tmp_path):
    (tmp_path / "some.jsonl").write_text(
        '{"message": "w1", "x": 1}\n{"message": null, "x": 2}\n{"message": " ", "x": 3}\n'
    )
    refused = ask(folder, "--input", tmp_path / "some.jsonl")
    assert refused.returncode == 2
    assert "give `--on-missing drop` to leave such rows out" in " ".join(refused.stderr.split())
    done = ask(folder, "--input", tmp_path / "some.jsonl", "--on-missing", "drop", "--output", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    assert "2 of the 3 rows of" in done.stderr
    assert "Answered 1 row" in done.stderr
    assert [json.loads(line)["x"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [1]


def test_an_empty_cell_of_a_csv_file_is_left_out_like_any_other(folder, tmp_path):
    (tmp_path / "some.csv").write_text('message,x\n"w1",1\n,2\n" ",3\n')
    done = ask(folder, "--input", tmp_path / "some.csv", "--on-missing", "drop")
    assert done.returncode == 0, done.stderr
    assert "2 of the 3 rows of" in done.stderr
    assert [line.split(",")[1] for line in done.stdout.splitlines()] == ["x", "1"]


def test_a_column_of_several_types_goes_to_every_format_but_parquet(folder, tmp_path):
    (tmp_path / "some.jsonl").write_text('{"message": "w1", "x": [1]}\n{"message": "w2", "x": "a"}\n')
    done = ask(folder, "--input", tmp_path / "some.jsonl", "--output", tmp_path / "out.parquet")
    assert done.returncode == 2
    assert "has values of one type, but one of the input has several" in done.stderr
    assert not (tmp_path / "out.parquet").exists()
    assert ask(folder, "--input", tmp_path / "some.jsonl", "--output", tmp_path / "out.jsonl").returncode == 0


def test_columns_of_the_same_name_are_left_out_and_told(folder):
    (folder / "twice.csv").write_text("message,a,a,b\nw1,1,2,3\n")
    done = ask(folder, "--input", "twice.csv")
    assert done.stdout.splitlines()[0] == "message,b,label,probability"
    assert 'several columns of the same name ("a")' in done.stderr


def test_texts_of_the_command_line_are_answered(folder, winner):
    texts = ["w1 w2", 'w3, "w4"', ""]
    done = ask(folder, *(part for text in texts for part in ("--text", text)))
    table = pd.read_csv(io.StringIO(done.stdout), keep_default_na=False)
    assert table["message"].tolist() == texts
    assert table["label"].tolist() == winner.predict(texts)
    expected = winner.predict_proba(texts).max(axis=1)
    np.testing.assert_allclose(table["probability"], expected, atol=1e-5)


def test_lines_are_answered_as_they_come_and_in_order(folder, winner):
    command = [sys.executable, "-m", "autopeft", "predict", "lora", "--json"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, cwd=folder, **pipes) as process:
        for lines in (["w1 w2"], ["w3", "", "w4 w5"]):
            process.stdin.write("".join(f"{line}\n" for line in lines))
            process.stdin.flush()
            found = [json.loads(process.stdout.readline()) for _ in lines]  # the next are written after these are there
            assert [row["message"] for row in found] == lines
            assert [row["label"] for row in found] == winner.predict(lines)
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


@pytest.mark.exhaustive
def test_more_lines_than_are_answered_at_a_time_keep_their_order(folder, winner):
    texts = [f"w{place % 50} w{place % 7}" for place in range(2 * BLOCK + 5)]
    done = autopeft("predict", "lora", cwd=folder, input="\n".join(texts))
    table = pd.read_csv(io.StringIO(done.stdout))
    assert table["message"].tolist() == texts
    assert table["label"].tolist() == winner.predict(texts)
    none = autopeft("predict", "lora", cwd=folder, input="")
    assert (none.returncode, none.stdout) == (2, "")
    assert "stdin is empty" in none.stderr


@pytest.mark.exhaustive
def test_a_reader_that_leaves_is_no_error_of_the_command(folder):
    command = f"{sys.executable} -m autopeft predict lora --input rows.csv | head -1; exit ${{PIPESTATUS[0]}}"
    rows = pd.concat([pd.read_csv(folder / "rows.csv")] * 60)
    rows.to_csv(folder / "many.csv", index=False)
    command = command.replace("rows.csv", "many.csv")
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.exhaustive
def test_rows_that_were_cut_are_told_once_of_all(folder, winner):
    before = winner.truncated
    winner.table(["w1 " * 100, "w2"])
    winner.table(["w1 " * 100])
    assert winner.truncated.rows - before.rows == 3
    assert winner.truncated.cut_rows - before.cut_rows == 2
    done = autopeft("predict", "lora", cwd=folder, input="w1\n" * BLOCK + f"{'w1 ' * 100}\n" * 2)
    assert done.stderr.count("cut down") == 1
    assert f"2 of {BLOCK + 2:,} rows are longer" in done.stderr


def test_a_column_is_found_by_the_name_of_the_study_before_the_key():
    assert by_key({"text": "message"}, ["text", "message"]) == {"text": "message"}
    assert by_key({"text": "message"}, ["text"]) == {"text": "text"}
    assert by_key({"text": "message"}, ["mesage"]) == {"text": "message"}
    swapped = {"text": "text_pair", "text_pair": "text"}
    assert by_key(swapped, ["text", "text_pair"]) == swapped
    rows = pd.DataFrame({"text": ["a"], "text_pair": ["b"]})
    assert keyed(rows, swapped).to_dict("records") == [{"text": "a", "text_pair": "b"}]  # a frame by its keys
    with pytest.raises(DataError, match='read `text_pair` from the column "text"'):
        keyed(rows, {"text_pair": "text"})


def test_a_parquet_file_is_read_some_rows_at_a_time(tmp_path):
    pd.DataFrame({"text": [f"t{row}" for row in range(5)], "n": range(5)}).to_parquet(tmp_path / "a.parquet")
    rows = open_rows(tmp_path / "a.parquet", {"text": "text"}, (Column("text"),), print)
    blocks = [*rows.blocks(2)]
    assert [len(inputs) for inputs, _ in blocks] == [2, 2, 1]
    assert [cell for _, kept in blocks for cell in kept["n"]] == [0, 1, 2, 3, 4]
    assert blocks[2][0].index.tolist() == [5]


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"", []),
        (b"\xef\xbb\xbfa\r\nb", ["a", "b"]),
        (b"\n", [""]),
        (b"a\n\nb\n", ["a", "", "b"]),
        ("ä".encode() * CHUNK + b"\nb\n", ["ä" * CHUNK, "b"]),  # characters lie across the parts that are read
        (b"a" * (CHUNK - 1) + b"\r\nb", ["a" * (CHUNK - 1), "b"]),
    ],
)
def test_lines_are_the_same_however_they_are_cut_into_parts(monkeypatch, raw, lines):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(raw)), encoding="utf-8"))
    assert [line for batch in batches_of_stdin() for line in batch] == lines


def test_lines_in_another_encoding_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n\xff\n"), encoding="utf-8"))
    with pytest.raises(UserInputError, match="must be in utf-8"):
        [*batches_of_stdin()]


def test_lines_are_given_as_soon_as_they_are_there(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(os.fdopen(reading, "rb"), encoding="utf-8"))
    batches = batches_of_stdin()
    os.write(writing, b"a\nb\nha")
    assert next(batches) == ["a", "b"]
    os.write(writing, b"lf\n")
    assert next(batches) == ["half"]
    os.close(writing)
    assert [*batches] == []


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_large_ids_beside_an_empty_one_are_written_as_they_were(folder, suffix, tmp_path):
    large = 2**53 + 1
    lines = [{"message": "w1", "id": large}, {"message": "w2", "id": None}, {"message": "w3", "id": 7}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = ask(folder, "--input", tmp_path / "rows.jsonl", "--output", tmp_path / f"answers.{suffix}")
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / f"answers.{suffix}", sep="," if suffix == "csv" else "\t", dtype=str)
    assert found["id"].fillna("").tolist() == [str(large), "", "7"]
