"""`autopeft.tune`: the same study as from a file, with rows in memory."""

import gc
import io
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import datasets
import mlflow.pyfunc
import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient
from rich.console import Console

import autopeft
from autopeft.common.exceptions import DataError, SpecError
from autopeft.data.load import load_rows
from autopeft.reporting.notebook_progress import NotebookProgress
from autopeft.reporting.progress import LiveProgress, PlainProgress, make_progress
from autopeft.study.folder import JOURNAL
from autopeft.tasks.registry import find_task
from autopeft.tuning import specify
from tests.conftest import DTYPE, autopeft_here, tiny_rows

SEARCH = {
    "methods": ["lora", "bitfit"],
    "references": False,
    "portfolio": False,
    "trials": 2,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 0.02,
}
VALIDATION = {"folds": 2, "packing": "off"}


def search(rows, tiny_model, **settings) -> autopeft.tuning.Tuned:
    given = {"search": SEARCH, "validation": VALIDATION, "progress": False, **settings}
    return autopeft.tune(model={"name_or_path": str(tiny_model), "dtype": DTYPE}, data=rows, **given)


@pytest.fixture(scope="module")
def tuned(tiny_model, tmp_path_factory):
    return search(tiny_rows(), tiny_model, output=tmp_path_factory.mktemp("tuned"), name="tuned")


def test_the_result_of_a_study_in_memory(tuned):
    board = tuned.leaderboard()
    assert list(board.index) == [1, 2]
    assert list(board["score"]) == sorted(board["score"], reverse=True)
    assert board["name"].iloc[0] == tuned.best.name
    assert board["lora.r"].notna().sum() == 1
    assert tuned.best.score == pytest.approx(np.mean(tuned.best.fold_scores))
    assert isinstance(tuned.study, optuna.Study)
    assert {trial.number for trial in tuned.study.trials} == set(board["number"])
    assert set(tuned.test.defaults) == {"bitfit", "lora"}
    assert tuned.winner.predict_proba(tiny_rows()).shape == (60, 3)
    assert tuned.winner.predict(["w1 w20", "w7"]) == tuned.winner.predict(pd.DataFrame({"text": ["w1 w20", "w7"]}))
    assert f"{tuned.best.score:.4f}" in repr(tuned)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("status",), "tuned is finished"),
        (("report",), "in cross-validation"),
        (("predict", "--text", "w1 w20"), "w1 w20,"),
        (("sync",), "MLflow has everything this study logged"),
    ],
)
def test_commands_take_its_output_folder(tuned, command, words):
    done = autopeft_here(command[0], tuned.folder, *command[1:], cwd=tuned.folder.parent)
    assert done.returncode == 0, done.stderr
    assert words in done.stdout + done.stderr


def test_the_leaderboard_has_few_columns_first_and_whole_numbers_as_such(tuned):
    board = tuned.leaderboard()
    assert list(board)[:6] == ["number", "method", "score", "state", "trainable_params", "seconds"]
    assert list(board).count("method") == 1
    whole = ["lora.r", "lora.lora_alpha", "lora.epochs", "bitfit.batch_size", "saved_bytes"]
    assert {str(board[name].dtype) for name in whole} == {"Int64"}
    assert str(board["lora.use_rslora"].dtype) == "boolean"
    params = tuned.best.params
    assert all(board.iloc[0][key] == value for key, value in params.items() if key != "method")


def test_a_study_and_its_winner_show_themselves_in_a_notebook(tuned):
    shown = tuned._repr_html_()
    assert shown.count("<tr>") >= 2 + len(tuned.leaderboard())
    for told in (tuned.best.name, f"{tuned.test.winner:.4f}", str(tuned.folder)):
        assert told in shown
    winner = tuned.winner._repr_html_()
    for told in ("maybe, no, yes", "Winner of study tuned", f"{tuned.test.winner:.4f}"):
        assert told in winner
    assert f"{tuned.test.winner:.4f}" in repr(tuned.winner)
    assert "text-classification" in repr(tuned.winner)


def test_the_report_and_its_pictures(tuned):
    page = tuned.report()
    assert Path(page) == tuned.folder / "report.html"
    assert "<iframe srcdoc=" in page._repr_html_()
    assert Path(page).read_text(encoding="utf-8").startswith("<!")
    Path(page).unlink()
    assert Path(tuned.report()).is_file()
    for plot in (tuned.plot_curves(), tuned.plot_fronts(), tuned.plot_confusion(), tuned.plot_leads()):
        assert plot._repr_png_().startswith(b"\x89PNG")
        assert plot.figure.axes
        assert len(repr(plot)) < 2000
    with pytest.raises(autopeft.AutopeftError, match=r"nothing to show in plot_residuals: .*It has: .*plot_curves"):
        tuned.plot_residuals()


def test_callbacks_get_each_record_and_an_error_in_one_stops_the_study_with_everything_kept(tiny_model, tmp_path):
    seen = []

    def enough(record: autopeft.TrialRecord) -> None:
        seen.append(record)
        raise LookupError("enough")

    given = {"output": tmp_path / "called", "name": "called", "search": {**SEARCH, "methods": ["bitfit"]}}
    with pytest.raises(LookupError, match="enough"):
        search(tiny_rows(), tiny_model, callbacks=[enough], **given)
    assert [record.state for record in seen] == ["COMPLETE"]
    again: list[autopeft.TrialRecord] = []
    found = search(tiny_rows(), tiny_model, callbacks=[again.append], **given)
    assert [record.number for record in again] == [1]
    assert found.leaderboard().set_index("number")["score"].loc[seen[0].number] == seen[0].score
    for wrong in (print, [print, 3]):
        with pytest.raises(autopeft.AutopeftError, match="`callbacks` must be a list of functions"):
            search(tiny_rows(), tiny_model, callbacks=wrong, **given)


def test_rows_are_named_after_the_argument_they_came_as(tmp_path):
    content = {"name": "s", "output": str(tmp_path / "o"), "model": {"name_or_path": "m"}}
    content["task"] = {"kind": "text-classification"}
    rows = tiny_rows()
    rows.loc[5, "label"] = None

    def told(data, test=None):
        with pytest.raises(DataError) as error:
            load_rows(specify(content, data, test), find_task("text-classification"))
        return str(error.value)

    assert told(rows).startswith("the frame given as `data`, row 6: the column")
    assert told({"train": rows}).startswith("the frame given as `train` in `data`, row 6")
    assert told(tiny_rows(), rows).startswith("the frame given as `test`, row 6")
    assert told({"train": tiny_rows(), "test": rows}).startswith("the frame given as `test` in `data`, row 6")
    assert told(rows.to_dict(orient="records")).startswith("the list given as `data`, row 6")
    assert told(datasets.Dataset.from_pandas(rows)).startswith("the data set given as `data`, row 6")
    with pytest.raises(ValueError, match=r"`X` with `y`.*row 3"):
        autopeft.AutoPeftClassifier().fit(["a", "b", "", "d"], ["x", "y", "x", "y"])


def test_the_rows_are_in_the_study_and_mlflow_knows_where(tuned):
    (kept,) = (tuned.folder / "rows").iterdir()
    pd.testing.assert_frame_equal(pd.read_parquet(kept), tiny_rows())
    client = MlflowClient(tuned.tracking_uri)
    parent = client.search_runs(
        [client.get_experiment_by_name("tuned").experiment_id], "tags.`autopeft.role` = 'search'"
    )[0]
    sources = [json.loads(entry.dataset.source) for entry in parent.inputs.dataset_inputs]
    assert sources == [{"uri": str(kept)}] * 2
    registered = client.get_model_version_by_alias("tuned", "winner")
    served = mlflow.pyfunc.load_model(registered.source).predict(tiny_rows()[["text"]])
    assert served["label"].tolist() == tuned.winner.predict(tiny_rows())


def test_the_same_call_goes_on_and_other_rows_are_refused(tuned, tiny_model):
    more = {**SEARCH, "trials": 3}
    again = search(tiny_rows().copy(), tiny_model, output=tuned.folder, name="tuned", search=more)
    assert len(list((tuned.folder / "rows").iterdir())) == 1
    longer = again.leaderboard()
    assert len(longer) >= 3
    first = tuned.leaderboard().set_index("number")["score"]
    pd.testing.assert_series_equal(longer.set_index("number")["score"].loc[first.index], first)
    with pytest.raises(SpecError, match=r"began with other settings.*data"):
        search(tiny_rows().iloc[1:], tiny_model, output=tuned.folder, name="tuned", search=more)


def test_a_winner_is_saved_from_memory(tuned, tmp_path, recwarn):
    tuned.winner.save(tmp_path / "copy")
    texts = ["w1 w20 w3", "w7 w30"]
    np.testing.assert_array_equal(
        autopeft.load(tmp_path / "copy").predict_proba(texts), tuned.winner.predict_proba(texts)
    )
    assert not [str(told.message) for told in recwarn if told.category is FutureWarning], "a red box in a notebook"


FORMS = {
    "frame": lambda rows: rows,
    "dataset": lambda rows: datasets.Dataset.from_pandas(rows, preserve_index=False),
    "class labels": lambda rows: datasets.Dataset.from_pandas(rows, preserve_index=False).class_encode_column("label"),
    "dicts": lambda rows: rows.to_dict(orient="records"),
    "tuples": lambda rows: list(rows.itertuples(index=False, name=None)),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_any_form_are_the_same_rows(form, tmp_path):
    content = {"name": "s", "model": {"name_or_path": "m"}, "task": {"kind": "text-classification"}}
    tiny_rows().to_csv(tmp_path / "rows.csv", index=False)

    def fingerprint(given):
        spec = specify({**content, "output": str(tmp_path / "output")}, given, None)
        return load_rows(spec, find_task("text-classification")).fingerprint

    assert fingerprint(FORMS[form](tiny_rows())) == fingerprint(tmp_path / "rows.csv")
    assert fingerprint({"train": FORMS[form](tiny_rows()), "max_rows": 30}) != fingerprint(tmp_path / "rows.csv")


def test_test_rows_and_splits(tmp_path):
    content = {"name": "s", "output": str(tmp_path / "o"), "model": {"name_or_path": "m"}}
    content["task"] = {"kind": "text-pair-classification"}
    train = [(f"a{i}", f"b{i}", i % 2) for i in range(20)]
    test = [("c", "d", 0), ("e", "f", 1)]

    def both(given, held_out=None):
        return load_rows(specify(content, given, held_out), find_task("text-pair-classification"))

    found = both(train, test)
    assert found.test["text"].tolist() == ["c", "e"]
    assert found.labels == ("0", "1")
    assert len(found.train) == 20
    names = ["text", "text_pair", "label"]
    splits = datasets.DatasetDict(
        {
            key: datasets.Dataset.from_pandas(pd.DataFrame(rows, columns=names))
            for key, rows in {"train": train, "test": test}.items()
        }
    )
    assert both(splits).fingerprint == found.fingerprint
    assert len(both({"train": splits, "test_fraction": 0.5}).test) == 10
    with pytest.raises(DataError, match='no split "dev"; it has train, test'):
        both({"train": splits, "train_split": "dev"})


def test_cells_of_several_types_and_odd_columns_can_be_kept(tmp_path):
    content = {"name": "s", "output": str(tmp_path / "o"), "model": {"name_or_path": "m"}}
    content["task"] = {"kind": "text-classification"}
    rows = [{"text": f"t{i}", "label": "a" if i % 2 else 1, 7: {"deep": [i]}} for i in range(20)]
    assert load_rows(specify(content, rows, None), find_task("text-classification")).labels == ("1", "a")
    rows[3]["label"] = None
    with pytest.raises(DataError, match=r'row 4: the column "label" must not be empty'):
        load_rows(specify(content, rows, None), find_task("text-classification"))


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"search": {"trails": 3, "methods": ["lora"]}}, '"trails" in .search. is not a setting'),
        ({"search": {"trials": 0}}, r"`trials` must be at least 1, but got 0 in the call of tune\(\)"),
        ({"budget": {"max_params": 3}}, '"max_params" in the call of tune.*did you mean'),
        ({"data": {"label": "sentiment"}}, "the setting `train` is missing"),
        ({"data": 3}, "rows must be a pandas frame.*int"),
        ({"data": [("only text",)]}, r"the list given as `data`, row 1, must be a dict or a tuple \(text, label\)"),
        ({"data": {"train": "rows.csv", "test_fraction": 0.3}, "test": "rows.csv"}, "exclude each other"),
    ],
)
def test_a_wrong_setting_is_one_sentence_and_begins_no_study(settings, rule, tiny_model, tmp_path):
    given = {"data": tiny_rows(), "output": tmp_path / "output", "progress": False, **settings}
    with pytest.raises(autopeft.AutopeftError, match=rule):
        autopeft.tune(model=tiny_model, **given)
    assert not (tmp_path / "output" / JOURNAL).exists()


def test_a_temporary_folder_goes_with_the_result_and_a_thread_may_run_it(tiny_model, capsys):
    found, handler = [], signal.getsignal(signal.SIGINT)
    arguments = {"temporary": True, "progress": True, "search": {**SEARCH, "methods": ["bitfit"], "trials": 1}}
    thread = threading.Thread(target=lambda: found.append(search(tiny_rows(), tiny_model, **arguments)))
    thread.start()
    thread.join()
    result = found.pop()
    assert signal.getsignal(signal.SIGINT) is handler
    assert "COMPLETE" in capsys.readouterr().out
    folder = result.folder
    winner = result.winner
    assert (folder / JOURNAL).is_file()
    del result
    gc.collect()
    assert not folder.exists()
    assert len(winner.predict(["w1", "w2"])) == 2


def test_progress_is_live_where_it_can_be_drawn():
    def shown(**options):
        return type(make_progress(Console(file=io.StringIO(), **options)))

    assert shown(force_jupyter=True) is NotebookProgress
    assert shown(force_jupyter=True, quiet=True) is PlainProgress
    assert shown(force_jupyter=False) is PlainProgress
    assert shown(force_terminal=True) is LiveProgress


def test_a_notebook_keeps_the_finished_table(tuned, capsys):
    shown = NotebookProgress()
    with shown:
        shown.say("<b>a word of a plugin</b>")
        for record in tuned._result.records:
            shown.finished(record)
        best = f"best so far: {tuned.best.score:.4f}, trial {tuned.best.number} "
        assert best in shown.html()
    left = shown.html()
    assert "&lt;b&gt;a word of a plugin&lt;/b&gt;" in left
    assert left.count("<tr>") == 1 + len(tuned.leaderboard())
    assert left.endswith("</table>"), "nothing is left to wait for"
    assert capsys.readouterr().err == ""


def test_importing_autopeft_is_light_and_its_names_are_all_there(tmp_path):
    code = (
        "import sys, autopeft\n"
        "heavy = {'torch', 'transformers', 'peft', 'mlflow', 'optuna', 'sklearn', 'pandas', 'numpy'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(autopeft.__all__) <= set(dir(autopeft))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    assert all(callable(getattr(autopeft, name)) for name in autopeft.LAZY)


def test_the_default_folder_is_named_after_the_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"name": "mine", "model": {"name_or_path": "m"}, "task": {"kind": "text-classification"}}
    spec = specify(content, tiny_rows(), None)
    assert spec.output == tmp_path / "outputs" / "mine"
    assert Path(spec.data.train).parent == tmp_path / "outputs" / "mine" / "rows"
