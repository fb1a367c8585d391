"""A study whose trials and runs are in PostgreSQL: with eight workers, nothing is lost there or doubled."""

import json
from collections import Counter

import optuna
import pytest
from mlflow import MlflowClient

from autopeft.study.record import RECORD
from autopeft.study.states import COUNTED
from autopeft.tracking import PARENT
from tests.conftest import autopeft, few
from tests.postgres import needs_postgres, server

WORKERS, TRIALS = 8, 16


@needs_postgres
@pytest.mark.parametrize("workers", few([2, WORKERS], WORKERS))
def test_eight_workers_against_postgresql_lose_and_double_no_trial(tiny_study, workers):
    with server() as postgres:
        optunas, mlflows = postgres.url("optuna"), postgres.url("mlflow")
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
