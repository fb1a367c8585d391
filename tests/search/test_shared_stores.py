"""A study whose trials and runs are in PostgreSQL or MySQL: with many workers, nothing is lost there or doubled."""

import json
from collections import Counter
from contextlib import contextmanager

import optuna
import pytest
from mlflow import MlflowClient

from autopeft.study.record import RECORD
from autopeft.study.states import COUNTED
from autopeft.tracking import PARENT
from tests import mysql, postgres
from tests.conftest import autopeft

WORKERS, TRIALS = 8, 16


@contextmanager
def in_postgresql():
    """The addresses of databases for Optuna and MLflow, on a server of this test's own."""
    with postgres.server() as found:
        yield found.url("optuna"), found.url("mlflow")


@contextmanager
def in_mysql():
    """The same."""
    with mysql.server() as socket:
        yield mysql.url(socket, "optuna"), mysql.url(socket, "mlflow")


@pytest.mark.parametrize(
    ("stores", "workers"),
    [
        pytest.param(in_postgresql, 2, marks=postgres.needs_postgres),
        pytest.param(in_postgresql, WORKERS, marks=[postgres.needs_postgres, pytest.mark.exhaustive]),
        pytest.param(in_mysql, 2, marks=[mysql.needs_mysql, pytest.mark.exhaustive]),
    ],
)
def test_many_workers_against_a_database_lose_and_double_no_trial(tiny_study, stores, workers):
    with stores() as (optunas, mlflows):
        text = tiny_study.read_text().replace("trials = 4", f"trials = {TRIALS}\nworkers = {workers}\nrace = 0")
        tracking = f'uri = "{mlflows}"\nstorage = "{optunas}"\nartifacts = "files"\nsystem_metrics = false'
        tiny_study.write_text(f"{text.replace('epochs = 4', 'epochs = 2')}[tracking]\n{tracking}\n")
        done = autopeft("run", tiny_study, "--json", cwd=tiny_study.parent, timeout=1800)
        assert done.returncode == 0, done.stderr
        trials = optuna.load_study(study_name="tiny", storage=optunas).trials
        client = MlflowClient(mlflows, mlflows)
        experiment = client.get_experiment_by_name("tiny")
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert [trial.number for trial in trials] == [*range(len(trials))]
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    records = {trial.number: trial.user_attrs[RECORD] for trial in trials}  # each has ended, and none ran again
    assert sum(record["state"] in COUNTED for record in records.values()) == TRIALS
    assert len({json.dumps(record["params"], sort_keys=True) for record in records.values()}) == len(trials)
    told = json.loads(done.stdout)["records"]
    assert {one["number"]: one["state"] for one in told} == {n: one["state"] for n, one in records.items()}
    nested = [run for run in runs if PARENT in run.data.tags]
    assert Counter(int(run.data.tags["trial"]) for run in nested) == Counter([*records])
    for run in nested:
        record = records[int(run.data.tags["trial"])]
        assert (run.data.tags["state"], run.info.status != "RUNNING") == (record["state"], True)
        if record["state"] == "COMPLETE":
            assert run.data.metrics["score"] == record["score"]
    assert [run.info.status for run in runs if PARENT not in run.data.tags] == ["FINISHED"]
    assert experiment.artifact_location == (tiny_study.parent / "files").as_uri()
    assert list((tiny_study.parent / "files").rglob("report.html"))
    assert not (tiny_study.parent / "outputs" / "tiny" / "artifacts").exists()
