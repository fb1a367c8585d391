"""A finished study has nothing to do where nothing has changed since, and is started as usual where anything has."""

import json
import os
from dataclasses import replace

import pytest

from autopeft.study import finished, record
from autopeft.study.card import CARD
from autopeft.study.file import StudySpec
from autopeft.study.record import Result, TrialRecord, plain

STUDY = '[model]\nname_or_path = "base"\n[task]\nkind = "text-classification"\n[data]\ntrain = "rows.csv"\n'
PLUGINS = {"lora": "autopeft 0.1.0"}
RECORD = TrialRecord(0, "lora r=8", "lora", "complete", "", 0.5, (0.5, 0.5), (0.4, 0.5), 2, 10, 10, 99, 98, 1.5)
RESULT = Result(
    "s", "accuracy", [RECORD], RECORD, record.TestScores(0.6, 0.3, {"lora": 0.5}, {}), "winner", "sqlite:///x"
)


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """A study whose output folder has what a finished one leaves."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text(STUDY)
    (tmp_path / "rows.csv").write_text("text,label\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    found = StudySpec.from_file(tmp_path / "s.toml")
    for name in ("study.journal", "report.html", "mlflow.db", "mlflow_model/MLmodel", f"winner/{CARD}"):
        (found.output / name).parent.mkdir(parents=True, exist_ok=True)
        (found.output / name).write_text("x")
    (found.output / "result.json").write_text(json.dumps(plain(RESULT)))
    finished.mark(found, PLUGINS, RESULT)
    return found


def test_the_result_comes_back_as_it_was(spec):
    assert finished.result_of(spec, PLUGINS) == RESULT
    finished.forget(spec.output)
    assert finished.result_of(spec, PLUGINS) is None


@pytest.mark.parametrize("gone", ["report.html", "winner/autopeft.json", "mlflow.db", "result.json", "done.json"])
def test_what_is_missing_is_made_again(spec, gone):
    (spec.output / gone).unlink()
    assert finished.result_of(spec, PLUGINS) is None


@pytest.mark.parametrize("changed", ["rows.csv", "base/config.json", "outputs/s/winner/autopeft.json"])
def test_a_file_that_has_changed_is_read_again(spec, changed):
    path = spec.folder / changed
    before = path.stat()
    path.write_text("changed")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # its size alone tells
    assert finished.result_of(spec, PLUGINS) is None


def test_other_settings_and_other_plugins_are_looked_into(spec):
    (spec.folder / "s.toml").write_text(STUDY + "[search]\ntrials = 50\n")
    assert finished.result_of(StudySpec.from_file(spec.folder / "s.toml"), PLUGINS) is None
    assert finished.result_of(spec, {"lora": "autopeft 0.2.0"}) is None


def test_a_source_of_a_method_that_has_changed_is_looked_into(spec):
    source = spec.folder / "outputs" / "earlier" / CARD
    source.parent.mkdir()
    source.write_text("{}")
    (spec.folder / "s.toml").write_text(STUDY + '[methods.merged]\nsources = ["outputs/earlier"]\n')
    building = StudySpec.from_file(spec.folder / "s.toml")
    finished.mark(building, PLUGINS, RESULT)
    assert finished.result_of(building, PLUGINS) == RESULT
    source.write_text("{ }")
    assert finished.result_of(building, PLUGINS) is None
    source.unlink()  # the winner stands alone
    assert finished.result_of(building, PLUGINS) == RESULT


def test_what_has_still_to_be_sent_is_sent(spec):
    (spec.output / "mlflow.outbox.jsonl").write_text("{}\n")
    assert finished.result_of(spec, PLUGINS) is None


def test_a_stopped_study_and_one_with_code_of_its_own_always_go_on(spec):
    finished.forget(spec.output)
    finished.mark(spec, PLUGINS, replace(RESULT, stopped="stopped by the timeout after 1 of 9 trials"))
    assert not (spec.output / "done.json").exists()
    finished.mark(spec.with_metric("own:score"), PLUGINS, RESULT)
    assert not (spec.output / "done.json").exists()
