import json
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from io import BytesIO
from pathlib import Path

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from PIL import Image

from autopeft.common.exceptions import StoreError, UserInputError
from autopeft.study.folder import OUTBOX, REFUSED
from autopeft.tracking import Remarks, Tracker, TrackingError, dataset, serve, serving, sync
from autopeft.tracking.outbox import Outbox
from autopeft.tracking.view import COLUMNS, VIEW_TAG

GIVEN = {"model": "package:some/model", "seed": 0}
SCORES = {0: 0.7, 1: 0.75}


@pytest.fixture
def output(tmp_path) -> Path:
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner" / "card.json").write_text('{"method": "lora"}')
    return tmp_path


def begin(output: Path, study_id: str = "one", uri: str | None = None) -> Tracker:
    tracker = Tracker.connect(uri, output, "study")
    tracker.start(study_id, "a search", GIVEN)
    return tracker


def runs(output: Path, uri: str | None = None) -> dict[str, object]:
    """Every run of the study by name, the best score first as the UI has it."""
    client = MlflowClient(uri or f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("study")
    return {
        run.info.run_name: run
        for run in client.search_runs([experiment.experiment_id], "", order_by=["metrics.score DESC"])
    }


def picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (40, 20)).save(file, "PNG")
    return file.getvalue()


def pictures(output: Path, uri: str | None = None) -> list[str]:
    """The pictures of the parent run, each file without its time and random part."""
    client = MlflowClient(uri or f"sqlite:///{output / 'mlflow.db'}")
    parent = runs(output, uri)["search"]
    assert parent.data.tags["mlflow.loggedImages"] == "True"
    names = [Path(file.path) for file in client.list_artifacts(parent.info.run_id, "images")]
    return sorted(name.name.partition("+timestamp")[0] + name.suffix for name in names)


def log_four_trials(tracker: Tracker) -> None:
    for number, (method, score) in enumerate([("adapter", 0.7), ("lora", 0.75)]):
        run = tracker.trial(number, f"{method} small", {"method": method, f"{method}.r": 8, "learning_rate": 1e-3})
        run.log_rung(1, [0.4, 0.6], 0.5, loss=0.9, epoch=1)
        run.log_rung(2, [score - 0.1, score + 0.1], score, loss=0.6, epoch=2)
        run.finish("COMPLETE", "", {"score": score, "score_when_stopped": None, "seconds": 2.5})
    run = tracker.trial(2, "lora tall", {"method": "lora", "lora.r": 64, "learning_rate": 1e-3})
    run.finish("INFEASIBLE", "trains 99 parameters, over 10", {"score": None, "trainable_params": 99})
    run = tracker.trial(3, "lora odd", {"method": "lora", "lora.r": 4, "learning_rate": 1.0})
    run.log_rung(1, [0.9, 0.9], 0.9, loss=0.1, epoch=1)
    run.finish("FAIL", "ValueError: the loss is not finite", {"score": None, "score_when_stopped": 0.9})


def test_every_trial_is_a_nested_run_that_says_what_it_was_and_why_it_lost(output):
    with begin(output) as tracker:
        tracker.log_text('name = "study"', "study.toml")
        log_four_trials(tracker)
        metrics = {"test_score": 0.72, "test_default_lora": None}
        tracker.log_result("**lora** won", metrics, SCORES, 1, output / "winner")
    found = runs(output)
    assert next(iter(found)) == "001 lora small"
    parent = found.pop("search")
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent.info.run_id}
    assert {
        name: (run.info.status, run.data.tags["state"], run.data.tags["reason"]) for name, run in found.items()
    } == {
        "001 lora small": ("FINISHED", "COMPLETE", "won"),
        "000 adapter small": ("FINISHED", "COMPLETE", "lost by 0.0500"),
        "002 lora tall": ("FINISHED", "INFEASIBLE", "trains 99 parameters, over 10"),
        "003 lora odd": ("FAILED", "FAIL", "ValueError: the loss is not finite"),
    }
    assert [name for name, run in found.items() if "score" in run.data.metrics] == [
        "001 lora small",
        "000 adapter small",
    ]
    assert found["001 lora small"].data.params == {"method": "lora", "r": "8", "learning_rate": "0.001"}
    assert [name for name, run in found.items() if run.data.tags.get("winner") == "true"] == ["001 lora small"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"model": "package:some/model", "seed": "0"}
    assert parent.data.metrics == {"test_score": 0.72}
    assert parent.data.tags["mlflow.note.content"] == "**lora** won"
    assert (output / "artifacts" / parent.info.run_id / "artifacts" / "study.toml").read_text() == 'name = "study"'
    assert list((output / "artifacts").rglob("winner/trial_001/card.json"))

    client = MlflowClient(tracker.uri)
    for metric, values in {"mean_score": [0.5, 0.75], "fold_1": [0.6, 0.85], "training_loss": [0.9, 0.6]}.items():
        history = client.get_metric_history(found["001 lora small"].info.run_id, metric)
        assert [(point.step, point.value) for point in history] == list(enumerate(values, 1))


def test_the_rows_of_a_study_are_logged_as_data_sets(output):
    rows = pd.DataFrame({"text": ["good", "bad"], "label": ["yes", "no"]})
    (output / "rows.csv").write_text(rows.to_csv(index=False))
    with begin(output) as tracker:
        tracker.log_data(
            [dataset(rows, "study", "train", output / "rows.csv"), dataset(rows[:1], "study", "test", "some/hub-id")]
        )
        tracker.trial(0, "lora", {"method": "lora"}).finish("COMPLETE", "", {"score": 0.5})
    (used,) = runs(output)["000 lora"].inputs.dataset_inputs
    inputs = runs(output)["search"].inputs.dataset_inputs
    found = {given.tags[0].value: given.dataset for given in inputs}
    assert {context: given.name for context, given in found.items()} == {"train": "study", "test": "study"}
    assert json.loads(found["train"].source) == {"uri": str(output / "rows.csv")}
    assert "some/hub-id" in found["test"].source
    assert [column["name"] for column in json.loads(found["train"].schema)["mlflow_colspec"]] == ["text", "label"]
    assert found["train"].digest != found["test"].digest
    assert (used.tags[0].value, used.dataset.digest) == ("train", found["train"].digest)


def test_a_trial_that_lost_says_by_how_much_and_what_it_would_have_saved(output):
    with begin(output) as tracker:
        log_four_trials(tracker)
        remarks = Remarks(cheaper={0: "would have saved 62% of the parameters"})
        tracker.log_result("won", {}, SCORES, 1, output / "winner", remarks=remarks)
    told = runs(output)["000 adapter small"].data.tags["reason"]
    assert told == "lost by 0.0500; would have saved 62% of the parameters"


def test_the_name_of_a_run_fits_its_column_and_the_whole_candidate_is_a_tag(output):
    name = "lora " + " ".join(f"dimension_{number}={number}" for number in range(9))
    with begin(output) as tracker:
        tracker.trial(0, name, {"method": "lora"}, "lora r=16")
        tracker.trial(1, name, {"method": "lora"})
    first, second = sorted(set(runs(output)) - {"search"})
    assert first == "000 lora r=16"
    assert second.startswith("001 lora dimension_0=0 ")
    assert second.endswith("…")
    assert len(second) == 40
    assert {run.data.tags["candidate"] for run in runs(output).values() if "candidate" in run.data.tags} == {name}


def test_the_page_of_the_registered_model_has_its_scores_and_its_card(output):
    (output / "mlflow_model").mkdir()
    (output / "mlflow_model" / "MLmodel").write_text("flavors: {}")
    card = "# lora\n" + "\n".join(f"| row {number} | 1 |" for number in range(900))
    with begin(output) as tracker:
        log_four_trials(tracker)
        for score in (0.71, 0.72):  # the same winner again, of which more is known by now
            facts = {"held_out_score": score, "metric": "accuracy", "trained_parameters": None}
            tracker.log_model(output / "mlflow_model", "a/study", 1, {"r": 8}, facts, card)
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    (version,) = client.search_model_versions("name = 'a-study'")
    for page in (client.get_registered_model("a-study"), version):
        assert {"held_out_score": "0.72", "metric": "accuracy"}.items() <= page.tags.items()
        assert "trained_parameters" not in page.tags
        assert page.description.startswith("# lora\n| row 0 | 1 |\n")
        assert page.description.endswith("| 1 |\n\n…")
        assert 4900 < len(page.description) <= 5000


def test_a_model_that_an_earlier_version_left_in_the_outbox_is_sent(output):
    (output / "mlflow_model").mkdir()
    (output / "mlflow_model" / "MLmodel").write_text("flavors: {}")
    with begin(output) as tracker:
        tracker.trial(0, "lora", {"method": "lora"})
        earlier = {"name": "study", "alias": "winner", "params": {"r": "8"}, "folder": "mlflow_model"}
        tracker.put("model", "one/trial/0", **earlier)
    client = MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    assert client.get_model_version_by_alias("study", "winner").description in (None, "")


def test_another_winner_after_more_trials_takes_the_title(output):
    with begin(output) as tracker:
        log_four_trials(tracker)
        tracker.log_result("first", {}, SCORES, 1, output / "winner")
    with begin(output) as tracker:
        tracker.trial(4, "lora", {"method": "lora"}).finish("COMPLETE", "", {"score": 0.8})
        tracker.log_result("second", {}, {**SCORES, 4: 0.8}, 4, output / "winner")
    found = runs(output)
    assert [name for name, run in found.items() if run.data.tags.get("winner") == "true"] == ["004 lora"]
    assert found["001 lora small"].data.tags["reason"] == "lost by 0.0500"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (KeyboardInterrupt(), "KILLED", "interrupted"),
        (RuntimeError("out of disk"), "FAILED", "the search ended: out of disk"),
    ],
)
def test_no_run_is_left_running_whatever_ends_the_search(output, error, status, reason):
    def search() -> None:
        with begin(output) as tracker:
            tracker.trial(0, "lora", {"method": "lora"}).log_rung(1, [0.5], 0.5, loss=1.0, epoch=1)
            raise error

    with pytest.raises(type(error)):
        search()
    found = runs(output)
    assert found["search"].info.status == status
    assert found["000 lora"].info.status == "KILLED"
    assert found["000 lora"].data.tags["state"] == "INTERRUPTED"
    assert found["000 lora"].data.tags["reason"] == reason


SERVE = """
import signal, sys, threading
from pathlib import Path
from autopeft.tracking import serve

def interrupt():  # where it ends no wait of the main thread's, as when it comes just before one
    sys.stdin.readline()
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

threading.Thread(target=interrupt).start()
serve(None, Path(sys.argv[1]), "study", int(sys.argv[2]))
"""

KILLED_STUDY = """
import os, signal, sys
from pathlib import Path
from autopeft.tracking import Tracker
tracker = Tracker.connect(None, Path(sys.argv[1]), "study")
tracker.start("one", "a search", {})
tracker.trial(0, "lora", {"method": "lora"}).finish("COMPLETE", "", {"score": 0.5})
tracker.trial(1, "lora", {"method": "lora"}).log_rung(1, [0.5], 0.5, loss=1.0, epoch=1)
if sys.argv[2] == "sent":
    tracker.outbox.drain(60)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["sent", "at once"])
def test_a_study_that_was_killed_goes_on_in_the_same_parent_run(output, when):
    command = [sys.executable, "-c", KILLED_STUDY, output, when]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout + done.stderr == ""  # MLflow's own chatter stays out of the progress view
    if when == "sent":
        assert {name: run.info.status for name, run in runs(output).items()} == {
            "search": "RUNNING",
            "000 lora": "FINISHED",
            "001 lora": "RUNNING",
        }
    with begin(output) as tracker:
        tracker.outbox.drain(60)
        found = runs(output)
        assert found["search"].info.status == "RUNNING"
        assert (found["001 lora"].info.status, found["001 lora"].data.tags["state"]) == ("KILLED", "INTERRUPTED")
        assert tracker.ended == {0}
        tracker.trial(1, "lora", {"method": "lora"}).finish("COMPLETE", "", {"score": 0.6})
    found = runs(output)
    assert {name: run.info.status for name, run in found.items()} == dict.fromkeys(found, "FINISHED")
    assert len(found) == 3


def test_a_new_study_of_the_same_name_starts_a_parent_of_its_own(output):
    with begin(output, "one") as first:
        pass
    with begin(output, "two") as second:
        pass
    client = MlflowClient(second.uri)
    assert first.experiment_id == second.experiment_id
    assert {run.data.tags["autopeft.study_id"] for run in client.search_runs([second.experiment_id])} == {"one", "two"}


def test_texts_longer_than_mlflow_keeps_are_cut(output):
    with begin(output) as tracker:
        run = tracker.trial(0, "lora", {"method": "lora", "target_modules": "q" * 20_000})
        run.finish("FAIL", "x" * 20_000, {})
    run = runs(output)["000 lora"]
    assert len(run.data.params["target_modules"]) == 6000
    assert len(run.data.tags["reason"]) == 8000


def test_the_saved_view_shows_metrics_and_tags_that_a_search_logs(output):
    with begin(output) as tracker:
        log_four_trials(tracker)
    view = json.loads(MlflowClient(tracker.uri).get_experiment(tracker.experiment_id).tags[VIEW_TAG])
    state = json.loads(view["state"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`score`", False)
    assert state["selectedColumns"] == list(COLUMNS)
    logged = {
        f"{kind}.`{key}`"
        for run in runs(output).values()
        for kind in ("tags", "metrics")
        for key in getattr(run.data, kind)
    }
    assert set(COLUMNS) - logged <= {"metrics.`measured_memory_mib`", "metrics.`predicted_memory_mib`"}


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://someone:secret@127.0.0.1:1", "http://127.0.0.1:1 gave: .*MLFLOW_TRACKING_USERNAME"),
        ("sqlite:////dev/null/mlflow.db", "sqlite:////dev/null/mlflow.db gave: .*check the path"),
        ("carrier-pigeon://coop", "carrier-pigeon://coop gave: "),
        ("mysql+nodriver://someone:secret@db/x", "mysql\\+nodriver://db/x gave: "),
    ],
)
def test_a_store_that_cannot_be_used_is_one_sentence_without_the_password(tmp_path, monkeypatch, uri, told):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match=told) as caught:
        Tracker.connect(uri, tmp_path, "study")
    assert isinstance(caught.value, UserInputError)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_store_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("these are notes, not a database" * 100)
    with pytest.raises(TrackingError, match=r"mlflow\.db gave: file is not a database; check the path"):
        Tracker.connect(None, tmp_path, "study")


@pytest.mark.exhaustive
def test_a_server_that_goes_away_costs_nothing_and_gets_everything_once_when_it_is_back(output, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    Tracker.connect(None, output, "other").outbox.close(0)
    said = []
    with serving(None, output, "study", port=0) as (address, _):
        uri = address.split("/#")[0]
        tracker = Tracker.connect(uri, output, "study", said.append)
        tracker.start("one", "a search", GIVEN)
        run = tracker.trial(0, "lora", {"method": "lora"})
        tracker.log_text("kept by the server", "note.txt")
        assert tracker.outbox.drain(60) == 0
    run.log_rung(1, [0.5], 0.5, loss=1.0, epoch=1)
    run.finish("COMPLETE", "", {"score": 0.5})
    tracker.log_image(picture(), "plots/leads", 1)
    tracker.trial(1, "lora", {"method": "lora"}).finish("PRUNED", "too low", {"score_when_stopped": 0.4})
    assert tracker.outbox.drain(1) > 0
    assert [sentence.partition(":")[0] for sentence in said] == ["MLflow cannot be reached"]

    port = int(uri.rsplit(":", 1)[1])
    with serving(None, output, "study", port) as (address, _):
        assert address.startswith(uri)
        assert tracker.outbox.drain(60) == 0
        assert said[1:] == ["MLflow can be reached again."]
        with tracker:
            pass
        found = runs(output, uri)
        assert pictures(output, uri) == ["plots~leads+step+1.png", "plots~leads+step+1.webp"]
    assert {name: run.info.status for name, run in found.items()} == dict.fromkeys(
        ("000 lora", "001 lora", "search"), "FINISHED"
    )
    assert found["000 lora"].data.metrics["mean_score"] == 0.5
    assert found["001 lora"].data.tags["state"] == "PRUNED"
    assert (output / OUTBOX).read_text() == ""
    assert "View run" not in capfd.readouterr().out  # stdout is for what a command was asked for


@pytest.mark.exhaustive
def test_what_is_left_when_a_study_ends_is_sent_by_sync(output, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    Tracker.connect(None, output, "other").outbox.close(0)
    with serving(None, output, "study", port=0) as (address, _):
        uri = address.split("/#")[0]
        tracker = begin(output, uri=uri)
        tracker.patience = 1.0
        run = tracker.trial(0, "lora", {"method": "lora"})
        assert tracker.outbox.drain(60) == 0
    with tracker:
        run.finish("COMPLETE", "", {"score": 0.5})
    assert tracker.unsent == 3
    with serving(None, output, "study", int(uri.rsplit(":", 1)[1])):
        monkeypatch.undo()
        assert sync(uri, output, "study", pytest.fail) == 0
        assert {run.info.status for run in runs(output, uri).values()} == {"FINISHED"}


def test_calls_that_come_twice_leave_one_run_and_one_point(output, monkeypatch):
    calls, put = [], Outbox.put
    monkeypatch.setattr(Outbox, "put", lambda self, call: [calls.append(call), put(self, call)])
    with begin(output) as tracker:
        log_four_trials(tracker)
        tracker.log_image(picture(), "plots/leads", 4)
    before = runs(output)
    lines = list(map(json.dumps, calls))
    (output / OUTBOX).write_text("\n".join([*lines, '{"do": "log", "run']))  # half a line, as from a process killed
    assert sync(None, output, "study", pytest.fail) == 0
    after = runs(output)
    assert len(calls) > 15
    assert {name: run.info.run_id for name, run in after.items()} == {n: run.info.run_id for n, run in before.items()}
    client = MlflowClient(tracker.uri)
    assert len(client.get_metric_history(after["001 lora small"].info.run_id, "mean_score")) == 2
    assert pictures(output) == ["plots~leads+step+4.png", "plots~leads+step+4.webp"]


def test_a_picture_of_more_trials_comes_after_the_one_before_and_the_same_one_does_not_come_twice(output):
    for step in (4, 6, 6):
        with begin(output) as tracker:
            tracker.log_image(picture(), "plots/leads", step)
    assert [name for name in pictures(output) if name.endswith("png")] == [
        "plots~leads+step+4.png",
        "plots~leads+step+6.png",
    ]


def load_of(output: Path, *, on: bool = True) -> dict[str, list[float]]:
    """What the parent run holds of the machine's load after a search of half a second."""
    with begin(output) as tracker, tracker.system_metrics(on=on):
        time.sleep(0.5)
    client, parent = MlflowClient(tracker.uri), runs(output)["search"]
    names = [name for name in parent.data.metrics if name.startswith("system/")]
    return {name: [p.value for p in client.get_metric_history(parent.info.run_id, name)] for name in names}


def test_the_machines_load_is_logged_under_mlflows_own_names(output, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    found = load_of(output)
    assert len(found["system/cpu_utilization_percentage"]) >= 2
    assert all(0 <= value <= 100 for value in found["system/cpu_utilization_percentage"])
    assert all(value > 100 for value in found["system/system_memory_usage_megabytes"])
    assert "system/disk_usage_percentage" in found


def test_what_cannot_be_read_of_the_machine_is_left_out_and_stops_nothing(output, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setitem(sys.modules, "mlflow.system_metrics.metrics.network_monitor", None)  # cannot be imported
    usage, asked = psutil.disk_usage, []
    monkeypatch.setattr(
        psutil, "disk_usage", lambda path: usage(path) if not asked.append(1) and asked == [1] else 1 / 0
    )
    found = load_of(output)
    assert len(asked) > 2
    assert {name.split("_")[0] for name in found} == {"system/cpu", "system/system"}
    assert capfd.readouterr().err == ""


def test_the_machines_load_is_not_logged_where_it_is_not_wanted_or_the_search_is_over_at_once(output):
    assert load_of(output, on=False) == {}
    assert load_of(output) == {}


def test_what_mlflow_refuses_is_said_and_holds_up_nothing(output):
    said = []
    with Tracker.connect(None, output, "study", said.append) as tracker:
        tracker.start("one", "a search", GIVEN)
        tracker.put("log", "nobody", params={"a": "b"})
        tracker.trial(0, "lora", {"method": "lora"}).finish("COMPLETE", "", {"score": 0.5})
    assert said == [
        "MLflow refused to log something (log): no run has the key nobody. It is kept in "
        f"{output / REFUSED}, and `autopeft sync` tries it again."
    ]
    assert runs(output)["000 lora"].info.status == "FINISHED"


def test_what_is_held_waits_in_its_file_and_comes_with_the_rest(output):
    with begin(output) as tracker:
        tracker.outbox.drain(30)
        tracker.outbox.hold()
        log_four_trials(tracker)
        time.sleep(1)
        assert len(runs(output)) == 1
        assert (output / OUTBOX).stat().st_size
        tracker.outbox.release()
        assert tracker.outbox.drain(30) == 0
        assert len(runs(output)) == 5
        tracker.outbox.hold()  # a search that ends has no more to say
        tracker.trial(9, "lora", {"method": "lora"}).finish("PRUNED", "", {})
    assert tracker.unsent == 0
    assert len(runs(output)) == 6


def test_what_a_full_disk_cannot_take_is_told_and_spoils_nothing(output):
    outbox, usual = output / OUTBOX, resource.getrlimit(resource.RLIMIT_FSIZE)
    with begin(output) as tracker:
        tracker.outbox.drain(60)
        tracker.outbox.hold()
        tracker.log_text("a", "first.txt")
        before = outbox.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, usual[1]))
        try:
            with pytest.raises(StoreError, match=r"could not be written: OSError.* run the same command again"):
                tracker.log_text("b", "second.txt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        assert outbox.read_bytes() == before
        tracker.log_text("c", "third.txt")
        tracker.outbox.drain(60)
        kept = MlflowClient(tracker.uri).list_artifacts(runs(output)["search"].info.run_id)
        assert {file.path for file in kept} == {"first.txt", "third.txt"}


def test_one_process_at_a_time_runs_a_study(output):
    with begin(output), pytest.raises(TrackingError, match="one process at a time may run a study"):
        Tracker.connect(None, output, "study")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.exhaustive
def test_the_ui_takes_another_port_when_its_own_is_taken_and_ctrl_c_ends_it(output):
    with begin(output) as tracker:
        log_four_trials(tracker)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = taken.getsockname()[1]
        command = [sys.executable, "-c", SERVE, output, str(wanted)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        address = process.stdout.readline().split()[-1]
        port = int(address.split(":")[2].split("/")[0])
        assert port != wanted
        assert f"/experiments/{tracker.experiment_id}/runs?" in address
        query = {"experiment_ids": [tracker.experiment_id]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search",
            json.dumps(query).encode(),
            {"Content-Type": "application/json"},
        )
        assert len(json.load(urllib.request.urlopen(request))["runs"]) == 5
        process.communicate("now\n", timeout=30)
        assert process.returncode == 0
    assert not listens(port)


def test_the_ui_needs_a_study_that_ran_and_points_to_a_server_where_there_is_one(tmp_path, capsys):
    with pytest.raises(TrackingError, match="run the study first"):
        serve(None, tmp_path, "study", 0)
    serve("http://someone@tracking.example", tmp_path, "study", 0)
    assert capsys.readouterr().out == "The study logs to a tracking server; open http://tracking.example\n"
