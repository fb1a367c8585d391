"""What is logged arrives, or is kept and told: an outbox's file that was damaged, and calls that a store refuses."""

import json
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos import databricks_pb2 as codes
from sqlalchemy import event
from sqlalchemy.engine import Engine

from autopeft.study.comments import without_comments
from autopeft.study.folder import OUTBOX, REFUSED
from autopeft.tracking import Tracker, TrackingError, public, sync
from autopeft.tracking.refusal import Verdict, verdict
from tests.conftest import autopeft_here

TRIAL = {"method": "lora"}


@pytest.fixture
def output(tmp_path) -> Path:
    (tmp_path / "winner").mkdir()
    (tmp_path / "winner" / "card.json").write_text('{"method": "lora"}')
    return tmp_path


def begin(output: Path, said: list[str] | None = None, uri: str | None = None, patience: float = 60) -> Tracker:
    tracker = Tracker.connect(uri, output, "study", [].append if said is None else said.append, patience=patience)
    tracker.start("one", "a search", {"seed": 0})
    return tracker


def client_of(output: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{output / 'mlflow.db'}")


def run_of(output: Path, name: str):
    client = client_of(output)
    experiment = client.get_experiment_by_name("study")
    (found,) = client.search_runs([experiment.experiment_id], f"run_name = '{name}'")
    return found


def aside(output: Path) -> list[dict]:
    place = output / REFUSED
    return [json.loads(line) for line in place.read_text().splitlines()] if place.is_file() else []


DAMAGED = [
    b'{"do": "log", "run": "one/trial/0", "tags": {"reason"',
    b"\x00\x00\x00\x00",
    b"\xff\xfe{}",
    b"[]",
    b'{"do": "log"}',
    b"[" * 100_000,
    b'{"do": "log", "run": "one/trial/0", "step": ' + b"9" * 5000 + b"}",
]


def test_damaged_lines_are_told_with_their_numbers_and_the_rest_is_sent(output):
    with begin(output) as tracker:
        tracker.trial(0, "lora", TRIAL)
    lines = [
        {"do": "log", "run": "one/trial/0", "metrics": [["score", 0.5, 1, 0]]},
        {"do": "log", "run": "one/trial/0", "tags": {"reason": "kept"}},
    ]
    first, last = (json.dumps(line).encode() for line in lines)
    (output / OUTBOX).write_bytes(b"\n".join([first, *DAMAGED, last, b""]))
    said = []
    tracker = Tracker.connect(None, output, "study", said.append)
    assert tracker.outbox.drain(60) == 0
    tracker.outbox.close(0)
    assert [sentence.split(" of ")[0] for sentence in said] == [f"Line {number}" for number in range(2, 9)]
    assert all("is damaged" in sentence and str(output / REFUSED) in sentence for sentence in said)
    assert max(map(len, said)) < 400 + 2 * len(str(output))
    run = run_of(output, "000 lora")
    assert (run.data.metrics["score"], run.data.tags["reason"]) == (0.5, "kept")
    assert [kept["line"] for kept in aside(output)] == [line.decode(errors="backslashreplace") for line in DAMAGED]
    again = []
    Tracker.connect(None, output, "study", again.append).outbox.close(0)
    assert again == []  # it is told once


def test_half_a_line_at_the_end_is_cut_off_and_what_comes_next_is_whole(output):
    with begin(output):
        pass
    whole = json.dumps({"do": "log", "run": "one/search", "tags": {"first": "1"}}) + "\n"
    (output / OUTBOX).write_text(whole + '{"do": "log", "run": "one/sea')
    said = []
    tracker = Tracker.connect(None, output, "study", said.append)
    tracker.put("log", "one/search", tags={"second": "2"})
    assert tracker.outbox.drain(60) == 0
    tracker.outbox.close(0)
    assert said == []
    tags = run_of(output, "search").data.tags
    assert (tags["first"], tags["second"]) == ("1", "2")


def test_a_call_that_the_store_never_takes_is_kept_beside_the_outbox_and_holds_up_nothing(output, monkeypatch):
    monkeypatch.setattr("autopeft.tracking.outbox.FIRST_PAUSE", 0.01)
    said = []
    with begin(output, said) as tracker:
        run = tracker.trial(0, "lora", {"method": "lora", "r": 8})
        tracker.put("log", run.key, params={"r": "16"})  # MLflow lets no param change
        tracker.put("log", run.key, tags={"x" * 9000: "y"})  # longer than it takes
        tracker.put("log", run.key, metrics=[["score"]])  # no metric at all
        tracker.put("dance", run.key)
        run.finish("COMPLETE", "", {"score": 0.5})
    assert run_of(output, "000 lora").data.metrics["score"] == 0.5
    assert [kept["call"]["do"] for kept in aside(output)] == ["log", "log", "log", "dance"]
    assert len(said) == 4
    assert all("refused" in sentence and str(output / REFUSED) in sentence for sentence in said)
    assert (output / OUTBOX).read_text() == ""


def test_refused_calls_that_come_again_are_told_and_kept_once(output):
    with begin(output) as tracker:
        tracker.trial(0, "lora", {"method": "lora", "r": 8})
    line = json.dumps({"do": "log", "run": "one/trial/0", "params": {"r": "16"}}) + "\n"
    said = []
    for _ in range(2):  # as after a process that was killed before it emptied its outbox
        (output / OUTBOX).write_text(line)
        tracker = Tracker.connect(None, output, "study", said.append)
        assert tracker.outbox.drain(60) == 0
        tracker.outbox.close(0)
    assert len(aside(output)) == len(said) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MlflowException("too long", codes.INVALID_PARAMETER_VALUE), Verdict.FINAL),
        (RestException({"error_code": "PERMISSION_DENIED", "message": "no"}), Verdict.FINAL),
        (RestException({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}), Verdict.AWAY),
        (RestException({"error_code": "TEMPORARILY_UNAVAILABLE", "message": "locked"}), Verdict.AWAY),
        (MlflowException("<html>", codes.ENDPOINT_NOT_FOUND), Verdict.DOUBTFUL),  # a proxy's, with its server away
        (MlflowException("<html>", codes.PERMISSION_DENIED), Verdict.DOUBTFUL),
        (RestException({"error_code": "UNAUTHENTICATED", "message": "expired"}), Verdict.DOUBTFUL),
        (MlflowException("oops"), Verdict.DOUBTFUL),
        (ModuleNotFoundError("No module named 'boto3'"), Verdict.FINAL),
        (ConnectionResetError(), Verdict.AWAY),
        (OSError(28, "No space left on device"), Verdict.AWAY),
        (PermissionError(13, "Permission denied"), Verdict.DOUBTFUL),
    ],
)
def test_only_what_would_be_the_same_another_time_counts_as_refused(error, expected):
    assert verdict(error) is expected


class Grumpy(BaseHTTPRequestHandler):
    """A server that answers every look-up, and every other request as its class says."""

    status, body = 200, b"{}"

    def answer(self, status: int, content: object) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        experiment = {"experiment_id": "1", "name": "study", "lifecycle_stage": "active", "artifact_location": "x"}
        self.answer(200, {"experiment": experiment})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("search"):
            self.answer(200, {"runs": []})
        elif self.path.endswith("log-batch"):
            self.answer(type(self).status, type(self).body)
        elif self.path.endswith("runs/create"):
            self.answer(200, {"run": {"info": {"run_id": "r", "run_uuid": "r", "experiment_id": "1"}, "data": {}}})
        else:
            self.answer(200, {})

    do_PATCH = do_POST  # noqa: N815  # as http.server calls it

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@contextmanager
def server_of(handler: type):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "no such thing"}, True),
        (413, b"<html>too large</html>", True),  # a proxy's; the server answers otherwise
        (500, {"error_code": "INTERNAL_ERROR", "message": "a bug that this call finds"}, True),
        (429, {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "later"}, False),
        (503, b"<html>away</html>", False),
    ],
)
def test_a_server_that_refuses_for_good_is_not_asked_for_ever(output, monkeypatch, status, body, refused):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("autopeft.tracking.outbox.FIRST_PAUSE", 0.01)
    handler = type("Handler", (Grumpy,), {"status": status, "body": body})
    said = []
    with server_of(handler) as uri:
        tracker = Tracker.connect(uri, output, "study", said.append)
        tracker.put("create", "one/search", name="search", tags={}, start=1)
        tracker.put("log", "one/search", tags={"a": "b"})
        left = tracker.outbox.drain(60 if refused else 1)
        tracker.outbox.close(0)
    assert left == (0 if refused else 1)
    assert len(aside(output)) == refused
    assert [sentence.split(" ")[1] for sentence in said] == ["refused" if refused else "cannot"]


def test_sync_says_what_could_not_be_sent_and_sends_it_once_it_can(output):
    with begin(output) as tracker:
        tracker.trial(0, "lora", TRIAL).finish("COMPLETE", "", {"score": 0.5})
        tracker.outbox.drain(60)
        tracker.outbox.hold()
        tracker.log_result("won", {}, {0: 0.5}, 0, output / "winner")
        (output / "winner").rename(output / "elsewhere")
    (kept,) = aside(output)
    assert kept["call"]["folder"] == "winner"
    assert kept["reason"] == f"the folder {output / 'winner'} no longer exists"
    (output / "study.toml").write_text(STUDY)
    done = autopeft_here("sync", "study.toml", cwd=output)
    assert done.returncode == 2
    assert "everything" not in done.stdout
    assert "except 1 call: the folder" in done.stderr
    assert done.stderr.count("\n") == 1
    (output / "elsewhere").rename(output / "winner")
    done = autopeft_here("sync", "study.toml", cwd=output)
    assert (done.returncode, done.stdout) == (0, "MLflow has everything this study logged.\n")
    assert list((output / "artifacts").rglob("winner/trial_000/card.json"))
    assert aside(output) == []


STUDY = """
name = "study"
output = "."
[model]
name_or_path = "model"
[task]
kind = "text-classification"
[data]
train = "rows.csv"
"""


def test_a_winner_that_another_one_replaced_is_not_sent_in_its_place(output):
    (output / "winner" / "adapter_model.safetensors").write_bytes(b"of trial 0")
    with begin(output) as tracker:
        tracker.trial(0, "lora", TRIAL).finish("COMPLETE", "", {"score": 0.5})
        tracker.outbox.drain(60)
        tracker.outbox.hold()
        tracker.log_result("won", {}, {0: 0.5}, 0, output / "winner")
        (output / "winner" / "adapter_model.safetensors").write_bytes(b"of trial 1")
    assert not list((output / "artifacts").rglob("winner/trial_000"))
    assert "holds other weights" in aside(output)[0]["reason"]


def test_what_comes_late_does_not_take_back_what_came_in_the_meantime(output):
    with begin(output) as tracker:
        tracker.trial(0, "lora", TRIAL).finish("COMPLETE", "", {"score": 0.5})
    calls = [
        {"do": "status", "run": "one/trial/0", "status": "RUNNING"},
        {"do": "log", "run": "one/trial/0", "tags": {"state": "RUNNING", "missed": "yes"}},
    ]
    kept = [json.dumps({"reason": "forbidden", "call": call}) for call in calls]
    (output / REFUSED).write_text("\n".join([*kept, ""]))
    assert sync(None, output, "study", pytest.fail) == 0
    run = run_of(output, "000 lora")
    assert run.info.status == "FINISHED"
    assert (run.data.tags["state"], run.data.tags["missed"]) == ("COMPLETE", "yes")


def test_what_is_on_its_way_survives_a_move_of_the_folder(output):
    with begin(output) as tracker:
        tracker.outbox.drain(60)
    line = {"do": "files", "run": "one/search", "folder": "/somewhere/else/winner", "path": "winner/trial_000"}
    (output / OUTBOX).write_text(json.dumps(line) + "\n")
    assert sync(None, output, "study", pytest.fail) == 0
    assert list((output / "artifacts").rglob("winner/trial_000/card.json"))


@pytest.fixture
def impatient_sqlite():
    """MLflow waits 20 s for a lock."""

    def shorter(connection, cursor, statement, parameters, context, many):
        return statement.replace("busy_timeout = 20000", "busy_timeout = 100"), parameters

    event.listen(Engine, "before_cursor_execute", shorter, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorter)


def test_a_store_that_another_program_holds_is_one_sentence_and_nothing_is_lost(output, impatient_sqlite, capfd):
    said = []
    tracker = begin(output, said)
    assert tracker.outbox.drain(60) == 0
    with closing(sqlite3.connect(output / "mlflow.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        run = tracker.trial(0, "lora", TRIAL)
        run.finish("COMPLETE", "", {"score": 0.5})
        until = time.monotonic() + 60
        while not said and time.monotonic() < until:
            time.sleep(0.05)
        assert tracker.outbox.drain(0) > 0
        other.execute("ROLLBACK")
    with tracker:
        assert tracker.outbox.drain(60) == 0
    assert [sentence.partition(":")[0] for sentence in said] == [
        "MLflow cannot be reached",
        "MLflow can be reached again.",
    ]
    assert "database is locked" in said[0]
    assert run_of(output, "000 lora").data.metrics["score"] == 0.5
    assert capfd.readouterr() == ("", "")


def test_a_store_that_another_program_holds_at_the_start_is_named(output, capfd):
    with closing(sqlite3.connect(output / "shared.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE other (a)")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            TrackingError, match=r"database is locked; another program has locked it: end that program, or wait"
        ):
            Tracker.connect(f"sqlite:///{output / 'shared.db'}?timeout=0.1", output, "study", patience=1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ('# my key: sk-123\nname = "a" # why\n', 'name = "a"\n'),
        ("name = \"a # b\"\ntext = 'c # d'\n", "name = \"a # b\"\ntext = 'c # d'\n"),
        ('t = """\n# in it\\" #\n"""" # out\n', 't = """\n# in it\\" #\n""""\n'),
        ("t = '''\n# in it''''' # out\n", "t = '''\n# in it'''''\n"),
        ("[a] # section\nb = [ # list\n 1, # one\n]\n", "[a]\nb = [\n 1,\n]\n"),
        ('a = "https://someone:secret@host/x" # y\n', 'a = "https://host/x"\n'),
    ],
)
def test_a_study_file_is_logged_without_its_comments_and_secrets(text, logged):
    assert public(without_comments(text)) == logged


@pytest.mark.parametrize("text", ["", "# only notes\n", "no toml # secret"])
def test_where_comments_cannot_be_told_apart_the_settings_are_logged_instead(text):
    assert not without_comments(text)
