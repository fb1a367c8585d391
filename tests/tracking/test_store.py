"""The store of a study: made by several at once, silent, named by the environment, in odd folders, and moved."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from autopeft.study.file import StudySpec
from autopeft.tracking import Tracker, TrackingError, public, quiet, serving, tracking_uri
from autopeft.tracking.address import registry_uri, sqlite_path
from autopeft.tracking.moved import follow
from tests.conftest import few
from tests.postgres import needs_postgres, server

ODD = ["a b", "a%20b", "a?b", "a#b", "ü", "a@b", "a%b", "a;b", "a&c=1"]


def log_all(output: Path, uri: str | None = None, name: str = "study", artifacts: str | None = None) -> Tracker:
    """A study with a trial and a model, each with an artifact."""
    for folder in ("winner", "mlflow_model"):
        (output / folder).mkdir(exist_ok=True)
        (output / folder / "card.json").write_text("{}")
    said: list[str] = []
    with Tracker.connect(uri, output, name, said.append, artifacts=artifacts) as tracker:
        tracker.start("one", "a search", {"seed": 0})
        tracker.log_text("kept", "note.txt")
        tracker.trial(0, "lora", {"method": "lora"}).finish("COMPLETE", "", {"score": 0.5})
        tracker.log_result("won", {}, {0: 0.5}, 0, output / "winner")
        tracker.log_model(output / "mlflow_model", name, 0, {})
    assert (said, tracker.unsent) == ([], 0)
    return tracker


def read_all(uri: str, name: str = "study") -> set[str]:
    """The artifacts that a plain client of MLflow finds, each of which it can read."""
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(name)
    found = set()
    for run in client.search_runs([experiment.experiment_id]):
        for file in client.list_artifacts(run.info.run_id):
            assert Path(client.download_artifacts(run.info.run_id, file.path)).exists()
            found.add(file.path)
    version = client.get_model_version_by_alias(name, "winner")
    place = mlflow.artifacts.download_artifacts(artifact_uri=version.source, tracking_uri=uri)
    return found | {file.name for file in Path(place).iterdir()}


EVERYTHING = {"note.txt", "winner", "card.json"}


@pytest.mark.parametrize("name", few(ODD, "a%20b", "a?b", "a#b"))
def test_a_study_stays_in_its_folder_whatever_that_is_called(tmp_path, name):
    output = tmp_path / name / "out"
    output.mkdir(parents=True)
    tracker = log_all(output)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["out"]
    assert (output / "mlflow.db").is_file()
    assert sqlite_path(tracker.uri) == output / "mlflow.db"
    assert read_all(tracker.uri) == EVERYTHING
    assert not list(output.glob("mlflow.db?*uri*"))


@pytest.mark.exhaustive
def test_the_ui_of_a_folder_with_escapes_in_its_name_makes_no_other(tmp_path):
    output = tmp_path / "a%20b?c" / "out"
    output.mkdir(parents=True)
    log_all(output)
    with serving(None, output, "study", port=0) as (address, _):
        client = MlflowClient(address.split("/#")[0])
        (run,) = client.search_runs([client.get_experiment_by_name("study").experiment_id], "run_name = '000 lora'")
        assert run.data.metrics["score"] == 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["a%20b?c"]


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_folder_that_moved_brings_its_artifacts_and_goes_on_writing_there(tmp_path, how):
    first, second = tmp_path / "first", tmp_path / "second one"
    first.mkdir()
    log_all(first)
    before = sorted(path for path in first.rglob("*") if path.is_file())
    (shutil.move if how == "moved" else shutil.copytree)(first, second)
    uri = tracking_uri(None, second)
    with Tracker.connect(None, second, "study") as tracker:
        tracker.start("one", "a search", {"seed": 0})
        tracker.log_text("new", "later.txt")
        assert tracker.outbox.drain(60) == 0
    if how == "moved":
        assert not first.exists()
    else:
        assert sorted(path for path in first.rglob("*") if path.is_file()) == before
    assert read_all(uri) == {*EVERYTHING, "later.txt"}
    with closing(sqlite3.connect(second / "mlflow.db")) as connection:
        text = "\n".join(connection.iterdump())
    assert f"{first.as_uri()}/" not in text


def test_files_go_where_the_study_says_and_nowhere_else_later(tmp_path):
    output, place = tmp_path / "out", tmp_path / "files of all"
    output.mkdir()
    tracker = log_all(output, artifacts=place.as_uri())
    assert read_all(tracker.uri) == EVERYTHING
    assert {path.name for path in place.rglob("*") if path.is_file()} >= {"note.txt", "card.json"}
    assert not (output / "artifacts").exists()
    Tracker.connect(None, output, "study", artifacts=f"{place.as_uri()}/").outbox.close(0)
    with pytest.raises(
        TrackingError, match=r"`artifacts` in .* cannot change once a study has begun: .*/files%20of%20all;"
    ):
        Tracker.connect(None, output, "study", artifacts="s3://bucket/path")


@pytest.mark.exhaustive
def test_files_go_where_a_server_keeps_them(tmp_path):
    output, place = tmp_path / "out", tmp_path / "destination"
    output.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--artifacts-destination", place.as_uri()]
    store = f"sqlite:///{tmp_path / 'server.db'}"
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command, "--backend-store-uri", store, "--workers", "1"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            with closing(socket.socket()) as door:
                if door.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        tracker = log_all(output, f"http://127.0.0.1:{port}")
        assert read_all(tracker.uri) == EVERYTHING
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    assert {path.name for path in place.rglob("*") if path.is_file()} >= {"note.txt", "card.json"}
    assert not (output / "artifacts").exists()


def test_a_store_whose_artifacts_stayed_behind_is_left_as_it_is(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    log_all(first)
    for file in first.glob("mlflow.db*"):
        shutil.copy(file, second)
    assert not follow(second / "mlflow.db", second / "artifacts")
    assert read_all(tracking_uri(None, second)) == EVERYTHING


def test_a_folder_is_not_moved_under_a_study_that_runs(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    log_all(first)
    shutil.move(first, second)
    with closing(sqlite3.connect(second / "mlflow.db")) as connection:
        before = list(connection.iterdump())
        lock = Tracker.connect(f"sqlite:///{tmp_path / 'other.db'}", second, "study")
        assert not follow(second / "mlflow.db", second / "artifacts")
        assert list(connection.iterdump()) == before
        lock.outbox.close(0)
        assert follow(second / "mlflow.db", second / "artifacts")


def test_a_folder_that_was_removed_begins_anew_in_the_same_process(tmp_path):
    for _ in range(2):
        output = tmp_path / "out"
        output.mkdir()
        tracker = log_all(output)
        with closing(sqlite3.connect(output / "mlflow.db")) as connection:
            assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)
        assert read_all(tracker.uri) == EVERYTHING
        shutil.rmtree(output)


AT_ONCE = """
import os, sys
from pathlib import Path
from autopeft.tracking import Tracker
from autopeft.tracking import address, store  # imported once, and not in each of the processes
import mlflow.store.tracking.sqlalchemy_store, mlflow.store.model_registry.sqlalchemy_store
uri, folder, names = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
ready, go = os.pipe()
def begin(output, name):
    os.close(go)
    os.read(ready, 1)  # until every process is there
    output.mkdir()
    with Tracker.connect(uri, output, name, print, patience=120) as tracker:
        tracker.start(output.name, "a search", {"seed": 0})
        tracker.trial(0, "lora", {"method": "lora"}).finish("COMPLETE", "", {"score": 0.5})
    assert tracker.unsent == 0
children = []
for index, name in enumerate(names):
    children.append(os.fork())
    if not children[-1]:
        begin(folder / f"out{index}", name)
        sys.stdout.flush()
        os._exit(0)
os.close(go)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def check_at_once(uri: str, folder: Path) -> None:
    """Four studies begin a store in the same moment, two of them of the same name."""
    command = [sys.executable, "-c", AT_ONCE, uri, folder, "a", "b", "same", "same"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    client = MlflowClient(uri, uri)
    experiments = {found.name: found.experiment_id for found in client.search_experiments()}
    assert {*experiments} == {"Default", "a", "b", "same"}
    counts = {name: len(client.search_runs([experiments[name]])) for name in ("a", "b", "same")}
    assert counts == {"a": 2, "b": 2, "same": 4}


def test_studies_that_begin_a_shared_file_at_once_all_go_on(tmp_path):
    check_at_once(f"sqlite:///{tmp_path / 'shared.db'}", tmp_path)


@pytest.mark.exhaustive
@needs_postgres
def test_studies_that_begin_an_empty_database_at_once_all_go_on(tmp_path):
    with server() as postgres:
        check_at_once(postgres.url("mlflow"), tmp_path)


@contextmanager
def silent():
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in kept:
                connection.close()


def test_a_start_does_not_wait_longer_than_its_bound_for_a_server_that_never_answers(tmp_path):
    with silent() as place:
        began = time.monotonic()
        with pytest.raises(TrackingError, match=r"gave: it gave no answer within 2 s; check the address"):
            Tracker.connect(f"http://{place}", tmp_path, "study", patience=2)
        assert time.monotonic() - began < 10


def test_a_server_that_does_not_answer_a_request_is_asked_again_until_the_bound(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with silent() as place:
        began = time.monotonic()
        with pytest.raises(TrackingError, match=r"timed out.*check the address"):
            Tracker.connect(f"http://{place}", tmp_path, "study", patience=3)
        assert 2 < time.monotonic() - began < 10


def test_a_store_that_is_held_as_a_study_starts_is_waited_for_and_that_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(quiet, "SILENCE", 0.5)
    path = tmp_path / "shared.db"
    log_all(tmp_path, f"sqlite:///{path}")
    said = []
    with held(path, 2):
        tracker = Tracker.connect(f"sqlite:///{path}?timeout=0.1", tmp_path, "study", said.append)
    with tracker, held(path, 2):
        tracker.start("one", "a search", {})
        assert tracker.ended == {0}
    assert said == ["MLflow's store does not answer; the study waits for it for up to 5 min."] * 2


@contextmanager
def held(path: Path, seconds: float):
    """Another program that nobody can read a SQLite file beside, for so long."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    end = threading.Timer(seconds, connection.close)
    end.start()
    try:
        yield
    finally:
        end.join()


@pytest.mark.exhaustive
def test_a_server_that_falls_silent_keeps_no_study_from_its_end(tmp_path):
    log_all(tmp_path)
    with serving(None, tmp_path, "study", port=0) as (address, server):
        tracker = Tracker.connect(address.split("/#")[0], tmp_path, "study")
        tracker.start("two", "a search", {})
        assert tracker.outbox.drain(60) == 0
        os.killpg(server.pid, 19)  # SIGSTOP: it accepts, and does not answer
        try:
            tracker.patience = 2
            began = time.monotonic()
            with tracker:
                tracker.trial(0, "lora", {"method": "lora"}).finish("COMPLETE", "", {"score": 0.5})
            assert time.monotonic() - began < 10
            assert tracker.unsent > 0
            began = time.monotonic()
            with pytest.raises(TrackingError, match="no answer within 2 s"):
                Tracker.connect(address.split("/#")[0], tmp_path, "study", patience=2)
            assert time.monotonic() - began < 10
        finally:
            os.killpg(server.pid, 18)  # SIGCONT


ELSEWHERE = {
    "MLFLOW_ACTIVE_MODEL_ID": "m-1",
    "MLFLOW_ARTIFACTS_DESTINATION": "other",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT": "other",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "MLFLOW_EXPERIMENT_ID": "77",
    "MLFLOW_EXPERIMENT_NAME": "other",
    "MLFLOW_REGISTRY_URI": "sqlite:///{folder}/other.db",
    "MLFLOW_RUN_ID": "0123456789abcdef",
    "MLFLOW_TRACKING_TOKEN": "of-the-shell",
    "MLFLOW_TRACKING_URI": "sqlite:///{folder}/other.db",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "other",
}
"""What a shell may have set for other work."""


def test_the_environment_sends_nothing_of_a_study_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in ELSEWHERE.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    output = tmp_path / "out"
    output.mkdir()
    tracker = log_all(output)
    assert read_all(tracker.uri) == EVERYTHING
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with closing(sqlite3.connect(output / "mlflow.db")) as connection:
        assert "of-the-shell" not in "\n".join(connection.iterdump())


def test_the_ui_shows_the_studys_own_store_and_registry_whatever_the_environment_says(tmp_path, monkeypatch):
    output = tmp_path / "out"
    output.mkdir()
    log_all(output)
    for name, value in {**ELSEWHERE, "MLFLOW_REGISTRY_STORE_URI": "sqlite:///{folder}/other.db"}.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    with serving(None, output, "study", port=0) as (address, _):
        client = MlflowClient(address.split("/#")[0], address.split("/#")[0])
        assert client.get_model_version_by_alias("study", "winner").tags["autopeft.run"] == "one/trial/0/winner"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("uri", "registry"),
    [
        ("databricks", "databricks-uc"),
        ("databricks://profile", "databricks-uc://profile"),
        ("databricks-uc", "databricks-uc"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////x/mlflow.db", "sqlite:////x/mlflow.db"),
    ],
)
def test_the_registry_is_the_stores_own(uri, registry):
    assert registry_uri(uri) == registry


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://someone:pa#ss/w@host/x", "http://host/x"),
        ("databricks://TOKEN@host", "databricks://host"),
        ("https://host/?api_key=abc&x=1", "https://host/?api_key=…&x=1"),
        ("https://host/?x=1&Access_Key=abc", "https://host/?x=1&Access_Key=…"),
        ("https://host/?X-Amz-Signature=abc", "https://host/?X-Amz-Signature=…"),
        ("postgresql://db/x?password=abc", "postgresql://db/x?password=…"),
        ("sqlite:////home/me@corp/mlflow.db", "sqlite:////home/me@corp/mlflow.db"),
        ("Changing param values is not allowed. Param with key='r'", None),
    ],
)
def test_secrets_of_an_address_are_not_shown_and_paths_are(text, shown):
    assert public(text) == (shown or text)


def test_a_database_that_is_not_there_is_named_at_once(tmp_path):
    (tmp_path / "notes.db").write_text("these are notes, not a database" * 100)
    began = time.monotonic()
    with pytest.raises(TrackingError, match=r"file is not a database; check the path"):
        Tracker.connect(f"sqlite:///{tmp_path / 'notes.db'}", tmp_path, "study")
    assert time.monotonic() - began < 20  # MLflow's own attempts take 100 s


def test_a_file_that_a_study_file_names_is_beside_it_whatever_its_folder_is_called(tmp_path):
    folder = tmp_path / "a%20b?c"
    folder.mkdir()
    (folder / "study.toml").write_text(NAMES_A_FILE)
    spec = StudySpec.from_file(folder / "study.toml")
    assert sqlite_path(spec.tracking.uri) == folder / "trials.db"


NAMES_A_FILE = """
name = "study"
[model]
name_or_path = "model"
[task]
kind = "text-classification"
[data]
train = "rows.csv"
[tracking]
uri = "sqlite:///trials.db"
"""
