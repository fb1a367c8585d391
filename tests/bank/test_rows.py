"""What is tested is not trained on, in no size, and rows are the same whenever they are drawn."""

import pandas as pd
import pytest
from drawing import drawn, key, prepared, rows_of
from measures import halves
from sources import BankTask, Folders

ADDRESSED = ("RT @ada: Look at THIS &amp; that! https://t.co/x9", "@bob look at this, that www.example.org")


def task(train: pd.DataFrame, test: pd.DataFrame) -> BankTask:
    return BankTask("made", "made", "text-classification", lambda folders: (train, test), "made up", "none")


def test_texts_are_alike_up_to_case_addresses_names_and_signs():
    assert len({key({"text": text}) for text in ADDRESSED}) == 1
    assert key({"text": "one thing"}) != key({"text": "another thing"})
    assert key({"text": "one", "text_pair": "two"}) != key({"text": "one two"}) == key({"tokens": ["One", "two"]})


def test_no_row_that_is_nearly_a_test_row_is_trained_on_nor_twice_the_same():
    train = pd.DataFrame({"text": [f"text {i} of many" for i in range(400)], "label": ["a", "b", "b", "b"] * 100})
    test = pd.DataFrame({"text": ["TEXT 7, of many!", "quite another", ADDRESSED[0]], "label": ["a", "b", "b"]})
    more = pd.DataFrame({"text": ["Text 9 of many...", ADDRESSED[1]], "label": ["b", "b"]})
    rows, held = drawn(task(pd.concat([train, more]), test), Folders([]))
    keys = [key({"text": text}) for text in rows["text"]]
    assert len(keys) == len({*keys}) >= 397
    assert not {*keys} & {key({"text": text}) for text in held["text"]}
    assert len(held) == 3


def test_every_size_holds_the_smaller_ones_and_each_label_in_its_share():
    train = pd.DataFrame({"text": [f"text {i}" for i in range(3000)], "label": ["a", "b", "b", "b"] * 750})
    rows, _ = drawn(task(train, train[:5]), Folders([]))
    assert len(rows) == rows_of("large") == 2250
    for size in ("small", "medium", "large"):
        shares = rows[: rows_of(size)]["label"].value_counts(normalize=True)
        assert shares["b"] == pytest.approx(0.75, abs=0.01)


def test_test_rows_with_a_label_that_the_smallest_size_does_not_teach_are_left_out():
    train = pd.DataFrame({"text": [f"text {i}" for i in range(900)], "label": ["a", "b", "c"] * 300})
    test = pd.DataFrame({"text": ["some", "other"], "label": ["a", "d"]})
    assert drawn(task(train, test), Folders([]))[1]["label"].tolist() == ["a"]


def test_the_files_of_a_size_are_written_once_and_always_the_same(tmp_path, data, tasks):
    files = prepared(tasks["labels"], "small", Folders([data]), tmp_path / "one")
    again = prepared(tasks["labels"], "small", Folders([data]), tmp_path / "two")
    assert [path.read_text() for path in files] == [path.read_text() for path in again]
    assert len(files[0].read_text().splitlines()) == rows_of("small")


def test_what_is_missing_is_told_by_name(tmp_path, tasks):
    with pytest.raises(SystemExit, match=r"--folder must name a folder with labels/train\.csv"):
        tasks["labels"].read(Folders([tmp_path]))


def test_the_halves_are_all_rows_and_none_twice():
    first, second = halves(101, 3)
    assert sorted([*first, *second]) == [*range(101)]
    assert len(first) == 50
