import sqlite3
from contextlib import closing

import pytest
from mlflow import MlflowClient

from autopeft.tracking import Tracker
from autopeft.tracking.tables import lay


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def content(path) -> dict[str, object]:
    """Everything a store holds before its first study but the one place and the times that MLflow writes into it."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master").fetchall()
        found = {table: connection.execute(f"SELECT * FROM '{table}'").fetchall() for _, _, table, _ in tables}
    assert len(found.pop("experiments")) == 1
    # MLflow's changes write a table's constraints in no fixed order.
    lines = {name: sorted((sql or "").replace(",", "").splitlines()) for name, _, _, sql in tables}
    return {"tables": lines, **found}


def test_a_store_from_the_cache_is_what_mlflow_makes_itself(tmp_path, place):
    lay(tmp_path / "first.db")
    (kept,) = place.iterdir()
    lay(tmp_path / "second.db")
    assert (tmp_path / "first.db").read_bytes() == (tmp_path / "second.db").read_bytes()
    for name in ("second", "own"):
        MlflowClient(f"sqlite:///{tmp_path}/{name}.db").search_experiments()
    assert content(tmp_path / "second.db") == content(tmp_path / "own.db")
    assert list(place.iterdir()) == [kept]


def test_what_is_there_is_left_alone(tmp_path, place):
    (tmp_path / "mlflow.db").write_bytes(b"something of the user's")
    lay(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == b"something of the user's"
    assert not place.exists()


def test_without_a_cache_a_study_has_its_store_all_the_same(tmp_path, place):
    place.write_text("a file where the folder should be")
    tracker = Tracker.connect(None, tmp_path, "study")
    assert MlflowClient(tracker.uri).get_experiment(tracker.experiment_id).name == "study"
    lay(tmp_path / "no such folder" / "mlflow.db")
    assert not (tmp_path / "no such folder").exists()
