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
from autopeft.reporting.progress import LiveProgress, PlainProgress, make_progress
from autopeft.study.folder import JOURNAL
from autopeft.tasks.registry import find_task
from autopeft.tuning import specify
from tests.conftest import DTYPE, tiny_rows

SEARCH = {
    "methods": ["lora", "bitfit"],
    "references": False,
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
    with pytest.raises(SpecError, match=r"begun with other settings.*data"):
        search(tiny_rows().iloc[1:], tiny_model, output=tuned.folder, name="tuned", search=more)


def test_a_winner_is_saved_from_memory(tuned, tmp_path):
    tuned.winner.save(tmp_path / "copy")
    texts = ["w1 w20 w3", "w7 w30"]
    np.testing.assert_array_equal(
        autopeft.load(tmp_path / "copy").predict_proba(texts), tuned.winner.predict_proba(texts)
    )


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
        ({"search": {"trails": 3, "methods": ["lora"]}}, '"trails" in .search. is no setting'),
        ({"search": {"trials": 0}}, r"`trials` must be at least 1, but got 0 in the call of tune\(\)"),
        ({"budget": {"max_params": 3}}, '"max_params" in the call of tune.*did you mean'),
        ({"data": {"label": "sentiment"}}, "the setting `train` is needed"),
        ({"data": 3}, "rows must be a pandas frame.*int"),
        ({"data": [("only text",)]}, r"`data`, row 1, must be a dict or a tuple \(text, label\)"),
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


def test_progress_is_live_where_it_can_be_drawn(monkeypatch):
    import importlib.util

    def shown(widgets: bool, **options):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if widgets else None)
        return type(make_progress(Console(file=io.StringIO(), **options)))

    assert shown(True, force_jupyter=True) is LiveProgress
    assert shown(False, force_jupyter=True) is PlainProgress
    assert shown(True, force_jupyter=False) is PlainProgress
    assert shown(False, force_terminal=True) is LiveProgress


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
