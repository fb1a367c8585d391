"""A study that was killed anywhere goes on with every trial once, to the result that it would have had."""

import json
import random
import shutil
import time
from collections import Counter

import pytest
from mlflow import MlflowClient

from tests.conftest import THREE
from tests.execution.test_processes import check_books
from tests.search.test_run import edit, store
from tests.soak.harness import Child

KILLS = 15
"""Of each kind: at a change and at a time, with one worker and with two; 60 together."""

FEW = ((THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 2"), ("epochs = 4", "epochs = 2"))


def check(study, trials: int) -> dict:
    """The stores are whole, and every finished fold was logged once for each rung; returns the result."""
    output = study.parent / "outputs" / "tiny"
    records = {record["number"]: record for record in check_books(study, trials)}
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    for run in store(output)[1]:
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
    """What must not depend on whether a study was killed."""
    best = {key: result["best"][key] for key in ("name", "params", "score", "fold_scores", "curve")}
    test = {key: value for key, value in result["test"].items() if key != "seconds"}
    trials = sorted((str(record["params"]), record["state"], record["score"]) for record in result["records"])
    return {"best": best, "test": test, "trials": trials}


def run(study, **how) -> Child:
    child = Child("run", study.name, cwd=study.parent, **how)
    child.code = child.wait()
    return child


def again(study, trials: int) -> dict:
    """Run it to its end after a kill; what was kept when it was killed stays as it was."""
    done = run(study)
    assert done.code == 0, done.said
    return check(study, trials)


@pytest.fixture
def undisturbed(tiny_study):
    """Makes the study with so many workers, and tells its outcome, its changes and its seconds."""

    def made(few: bool = False, workers: int = 1, timed: bool = False):
        edit(tiny_study, *(FEW if few else ()), ("batch_size = 8", f"batch_size = 8\nworkers = {workers}"))
        for _ in range(2 if timed else 1):  # the first child of a process imports what later ones find imported
            shutil.rmtree(tiny_study.parent / "outputs", ignore_errors=True)
            started = time.monotonic()
            whole = run(tiny_study)
            seconds = time.monotonic() - started
            assert whole.code == 0, whole.said
        expected = outcome(check(tiny_study, 2 if few else 4))
        shutil.rmtree(tiny_study.parent / "outputs")
        return expected, whole.changes.value, seconds

    return made


@pytest.mark.soak
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("at", ["a change", "a time"])
def test_a_study_that_is_killed_ends_as_if_it_was_not(tiny_study, undisturbed, count, at):
    expected, changes, seconds = undisturbed(workers=count, timed=at == "a time")
    drawn, kills = random.Random(f"{count} {at}"), 0
    for _ in range(2 * KILLS):  # some end before they are killed
        fatal, time_out = drawn.randint(1, changes), drawn.uniform(0, seconds)
        killed = run(tiny_study, **({"fatal": fatal} if at == "a change" else {"seconds": time_out}))
        assert killed.code in (-9, 0), killed.said
        result = again(tiny_study, 4) if killed.code else check(tiny_study, 4)
        if count == 1:
            assert outcome(result) == expected, f"killed at {at}: {fatal} of {changes}, {time_out} of {seconds}"
        shutil.rmtree(tiny_study.parent / "outputs")
        kills += killed.code == -9
        if kills == KILLS:
            break
    assert kills == KILLS


@pytest.mark.soak
def test_a_few_kills(tiny_study, undisturbed):
    expected, changes, _ = undisturbed(few=True)
    for share in (0.6, 0.3):  # of the changes of a whole run; what is left after the first is more than the second
        killed = run(tiny_study, fatal=round(changes * share))
        assert killed.code == -9
    assert outcome(again(tiny_study, 2)) == expected
