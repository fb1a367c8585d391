"""What must hold of a study's stores after whatever happened to it."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import optuna
from mlflow import MlflowClient

from autopeft.study.database import Entry
from autopeft.study.storage import open_study
from tests.execution.test_processes import check_books
from tests.search.test_run import store
from tests.soak.harness import Child

if TYPE_CHECKING:
    from pathlib import Path


class Whole(NamedTuple):
    """What an undisturbed run of a study gives: its outcome, its changes on the disk, and its seconds."""

    outcome: dict
    changes: int
    seconds: float


def run(study: Path, kind: type[Child] = Child, **how) -> Child:
    """Run a study, and wait for it."""
    child = kind("run", study.name, cwd=study.parent, **how)
    child.code = child.wait()
    return child


def again(study: Path, trials: int, uri: str | None = None, kind: type[Child] = Child) -> dict:
    """Run it to its end after a fault; returns its result."""
    done = run(study, kind)
    assert done.code == 0, done.said
    return check(study, trials, uri)


def undisturbed(
    study: Path, trials: int, uri: str | None = None, *, warm: bool = False, kind: type[Child] = Child
) -> Whole:
    """Run the study from its start to its end, and remove what it wrote.

    Args:
        study: its file.
        trials: that it has.
        uri: of its MLflow store; None for its own.
        warm: run it before once: the first child of a process imports what later ones find imported.
        kind: how its command runs.
    """
    for _ in range(2 if warm else 1):
        remove(study)
        started = time.monotonic()
        whole = run(study, kind)
        seconds = time.monotonic() - started
        assert whole.code == 0, whole.said
    expected = outcome(check(study, trials, uri))
    remove(study)
    return Whole(expected, whole.changes.value, seconds)


def remove(study: Path) -> None:
    """Remove what the study wrote, also into a database, and what its commands said."""
    if entry := Entry.of(study.parent / "outputs" / "tiny"):
        optuna.delete_study(study_name=entry.name, storage=entry.url)
    shutil.rmtree(study.parent / "outputs", ignore_errors=True)
    for path in study.parent.glob("said.*"):
        path.unlink()


def check(study: Path, trials: int, uri: str | None = None) -> dict:
    """The stores are whole, and every finished fold was logged once for each rung; returns the result."""
    output = study.parent / "outputs" / "tiny"
    records = {record["number"]: record for record in check_books(study, trials, uri)}
    client = MlflowClient(uri or f"sqlite:///{output / 'mlflow.db'}")
    own = open_study(output).user_attrs["study_id"]
    for run in store(output, uri, own)[1]:
        if run.data.tags["state"] == "INTERRUPTED":
            continue
        record = records[int(run.data.tags["trial"])]
        for fold in range(len(record["fold_scores"])):
            points = client.get_metric_history(run.info.run_id, f"fold_{fold}")
            assert Counter(point.step for point in points) == dict.fromkeys(range(1, len(record["curve"]) + 1), 1)
    left = [path.name for path in output.iterdir() if path.name.startswith(".") or path.name.endswith(".rename")]
    assert left == []
    return json.loads((output / "result.json").read_text())


def outcome(result: dict) -> dict:
    """What must not depend on whether a study was disturbed."""
    best = {key: result["best"][key] for key in ("name", "params", "score", "fold_scores", "curve")}
    test = {key: value for key, value in result["test"].items() if key != "seconds"}
    trials = sorted((str(record["params"]), record["state"], record["score"]) for record in result["records"])
    return {"best": best, "test": test, "trials": trials}
