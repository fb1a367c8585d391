"""Winners and MLflow models made before the modules moved into packages load, and answer what they answered."""

import importlib
from pathlib import Path

import mlflow
import pandas as pd
import pytest

import autopeft

# A study on a tiny BERT at commit 4b4630e, with what its winner answered there.
FOLDER = Path(__file__).parents[1] / "fixtures" / "before_packages"
TEXTS = ["w1 w11 w2", "w0 w20", "w2 w30 w31 w32"]
SCORES = [
    [0.28210732340812683, 0.3903566300868988, 0.32753604650497437],
    [0.2800702750682831, 0.39470118284225464, 0.3252285420894623],
    [0.27946335077285767, 0.3921060562133789, 0.32843056321144104],
]


def test_a_winner_answers_what_it_answered(monkeypatch):
    monkeypatch.chdir(FOLDER)
    winner = autopeft.load(FOLDER / "mlflow_model" / "data" / "winner")
    for row, expected in zip(winner.predict_proba(TEXTS).tolist(), SCORES, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


def test_a_logged_model_loads_by_the_name_that_it_was_logged_with(monkeypatch):
    monkeypatch.chdir(FOLDER)
    model = mlflow.pyfunc.load_model(str(FOLDER / "mlflow_model"))
    found = model.predict(pd.DataFrame({"text": TEXTS}))
    assert list(found["label"]) == ["no", "no", "no"]
    assert list(found["probability"]) == pytest.approx([row[1] for row in SCORES], abs=1e-5)


def test_a_pickled_winner_finds_what_it_was_pickled_with():
    assert (
        importlib.import_module("autopeft.artifact")._of_files
        is importlib.import_module("autopeft.winner.winner")._of_files
    )
