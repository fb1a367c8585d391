"""Rows with empty cells: refused, with the setting that leaves them out, or left out and counted."""

import json

import pandas as pd
import pytest

from autopeft.common.exceptions import DataError, SpecError
from autopeft.data.in_memory import as_table, keep
from autopeft.data.load import load_rows
from autopeft.data.missing import without_empty
from autopeft.data.table import open_table
from autopeft.study.file import StudySpec
from autopeft.tasks.column import Column
from autopeft.tasks.registry import find_task
from tests.conftest import autopeft_here, tiny_rows

COLUMNS = (Column("text"), Column("label", "label", given=False))
WANTED = {"text": "text", "label": "label"}


def spec_of(folder, kind="text-classification", **data):
    content = {"name": "s", "model": {"name_or_path": "m"}, "task": {"kind": kind}}
    return StudySpec.from_mapping({**content, "data": {"train": "rows.csv", **data}}, folder=folder)


def load(folder, kind="text-classification", **data):
    spec = spec_of(folder, kind, **data)
    return load_rows(spec, find_task(kind).configured({}).taking(spec.data.named))


@pytest.fixture
def gaps(tmp_path):
    """60 rows: no text in lines 3 and 4, no label in lines 4 and 9."""
    rows = tiny_rows().assign(group="", other="")
    rows.loc[[1, 2], "text"] = ["", "  "]
    rows.loc[[2, 7], "label"] = ""
    rows.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


def test_an_empty_cell_is_an_error_that_names_the_setting(gaps):
    with pytest.raises(DataError) as told:
        load(gaps)
    assert str(told.value).endswith(
        'row 3: the column "text" must not be empty, but it is (in 2 rows in all). Fill or remove them, or set '
        '`on_missing = "drop"` in [data] to leave such rows out.'
    )
    with pytest.raises(SpecError, match="on_missing"):
        load(gaps, on_missing="fill")


def test_such_rows_are_left_out_counted_and_told(gaps):
    found = load(gaps, on_missing="drop")
    assert found.dropped == 3
    assert len(found.train) + len(found.test) == 57
    assert not {3, 4, 9} & {*found.train.index, *found.test.index}, "rows keep their numbers"
    told = f'3 of the 60 rows of {gaps / "rows.csv"} were left out for an empty cell: "text" in 2, "label" in 2.'
    assert told in found.notes
    whole = load(gaps, on_missing="drop", max_rows=30)
    assert (whole.dropped, len(whole.train) + len(whole.test)) == (3, 30), "rows are drawn from those that are whole"


def test_rows_of_a_test_file_are_counted_too(gaps):
    held_out = pd.DataFrame({"text": ["new", "newer", "newest"], "label": ["no", None, "yes"]})
    held_out.to_csv(gaps / "test.csv", index=False)
    found = load(gaps, on_missing="drop", test="test.csv")
    assert (found.dropped, len(found.test)) == (4, 2)
    assert any('test.csv was left out for an empty cell: "label" in 1.' in note for note in found.notes)


def test_nothing_is_told_where_no_cell_is_empty(tmp_path):
    tiny_rows().to_csv(tmp_path / "rows.csv", index=False)
    plain, dropping = load(tmp_path), load(tmp_path, on_missing="drop")
    assert (dropping.dropped, dropping.notes, dropping.fingerprint) == (0, plain.notes, plain.fingerprint)


def test_a_table_without_a_whole_row_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\na,\n,b\n")
    with pytest.raises(
        DataError, match=r'must have at least one row without empty cells.*"text" in 1, "label" in 1\); fill'
    ):
        load(tmp_path, on_missing="drop")


def test_what_is_not_empty_but_wrong_stays_an_error(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": t, "label": "a"}) for t in (["x"], None, "b")))
    with pytest.raises(DataError, match=r"row 1: every cell of the column .text. must be one text"):
        load(tmp_path, train="rows.jsonl", on_missing="drop")


def test_a_cell_that_may_be_empty_is_no_reason(tmp_path):
    """A row without labels is one of a task of several labels; one whose cell holds nothing is not."""
    rows = tiny_rows().rename(columns={"label": "labels"})
    cells = ["", None, *rows["labels"][2:]]
    text = "\n".join(json.dumps({"text": t, "label": c}) for t, c in zip(rows["text"], cells, strict=True))
    (tmp_path / "rows.jsonl").write_text(text)
    found = load(tmp_path, "multi-label-classification", train="rows.jsonl", on_missing="drop")
    assert found.dropped == 1
    assert any('rows.jsonl was left out for an empty cell: "label" in 1.' in note for note in found.notes)
    table = open_table(tmp_path / "rows.jsonl")
    blank = (Column("text"), Column("label", "label", given=False, blank=True))
    assert without_empty(table, WANTED, blank)[1].rows == 0


def test_rows_in_memory_are_left_out_as_those_of_a_file(tmp_path):
    rows = tiny_rows().astype(object)
    rows.loc[5, "text"] = None
    table = as_table(rows, ["text", "label"], "`data`")
    with pytest.raises(DataError, match=r'row 6: the column "text" must not be empty.*on_missing = "drop"'):
        keep(table, WANTED, tmp_path, COLUMNS)
    path = keep(table, WANTED, tmp_path, COLUMNS, empty=True)
    found = load(tmp_path, train=str(path), on_missing="drop")
    assert found.dropped == 1
    assert '1 of the 60 rows of `data` was left out for an empty cell: "text" in 1.' in found.notes


def test_an_image_that_is_not_there_is_left_out(tmp_path):
    pytest.importorskip("PIL")
    from PIL import Image

    rows = [{"image": Image.new("RGB", (8, 8), (place, 0, 0)), "label": str(place % 2)} for place in range(8)]
    frame = pd.DataFrame([*rows, {"image": None, "label": "1"}])
    columns = find_task("image-classification").columns
    path = keep(as_table(frame, ["image", "label"], "`data`"), {"image": "image", "label": "label"}, tmp_path, columns,
                empty=True)  # fmt: skip
    table, dropped = without_empty(open_table(path), {"image": "image", "label": "label"}, columns)
    assert dropped.rows == 1
    assert sum(len(block) for block in table.blocks(["image"])) == 8


@pytest.mark.exhaustive
def test_a_study_tells_it_everywhere_and_its_winner_knows_the_columns(tiny_study):
    folder, output = tiny_study.parent, tiny_study.parent / "outputs" / "tiny"
    rows = tiny_rows().rename(columns={"text": "message", "label": "queue"})
    rows.loc[[1, 2], "message"] = ""
    rows.to_csv(folder / "rows.csv", index=False)
    data = '"rows.csv"\ntext = "message"\nlabel = "queue"\non_missing = "drop"'
    text = tiny_study.read_text().replace('"rows.csv"', data).replace("trials = 4", "trials = 1")
    tiny_study.write_text(text.replace('methods = ["adapter", "lora", "prefix_tuning"]', 'methods = ["lora"]'))
    done = autopeft_here("run", "study.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = 'rows.csv were left out for an empty cell: "message" in 2.'
    assert told in " ".join((done.stdout + done.stderr).split())
    assert "2 rows with an empty cell were left out." in (output / "report.html").read_text()
    assert "rows.csv; 2 rows with an empty cell left out" in (output / "winner" / "README.md").read_text()
    (card,) = (output / "mlflow").rglob("data.json") if (output / "mlflow").exists() else output.rglob("data.json")
    assert json.loads(card.read_text())["dropped_rows"] == 2
    done = autopeft_here("predict", output / "winner", "--input", "rows.csv", cwd=folder)
    assert done.stdout.splitlines()[0] == "message,queue,label,probability"
    assert len(done.stdout.splitlines()) == 61
