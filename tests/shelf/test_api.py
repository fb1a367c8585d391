"""Winners over HTTP: answers, errors, limits, and who may ask."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from autopeft import Shelf, load
from autopeft.shelf import guard
from autopeft.shelf.asked import Rows
from autopeft.shelf.batcher import Batcher
from tests.conftest import autopeft_here
from tests.shelf.served import serving
from tests.shelf.test_shelf import same
from tests.shelf.winners import rows_of, winner_of


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model):
    root = tmp_path_factory.mktemp("api")
    kinds = {"tone": ("text-classification", "lora"), "count": ("regression", "adapter")}
    return {name: winner_of(root, tiny_model, kind, method, name) for name, (kind, method) in kinds.items()}


@pytest.fixture(scope="module")
def shelf(folders):
    return Shelf.load(folders)


@pytest.fixture(scope="module")
def client(shelf):
    with serving(shelf) as found:
        yield found


def test_answers_are_those_of_predict(client, folders):
    rows = rows_of("text-classification", 5)[["text"]]
    status, told = client.post("/predict", {"winner": "tone", "rows": rows.to_dict("records")})
    assert status == 200
    same(told["answers"], load(folders["tone"]).as_json(rows))
    assert told["notes"] == []
    assert client.post("/predict", {"winner": "tone", "rows": rows["text"].tolist()})[1] == told


def test_many_clients_at_once_get_their_own_answers(client, shelf, folders):
    """Also while their rows share passes, which is seen by fewer passes than requests."""
    passes = []
    run = shelf._settled.joint.run
    shelf._settled.joint.run = lambda runs: passes.append(len(runs)) or run(runs)
    kinds = {"tone": "text-classification", "count": "regression"}
    asked = [(name, rows_of(kinds[name], 2, skip=2 * place)) for place in range(12) for name in kinds]
    try:
        with ThreadPoolExecutor(len(asked)) as threads:
            found = [*threads.map(lambda one: client.post("/predict", body(*one)), asked)]
    finally:
        del shelf._settled.joint.run
    assert {status for status, _ in found} == {200}
    own = {name: load(folder) for name, folder in folders.items()}
    for (name, rows), (_, told) in zip(asked, found, strict=True):
        same(told["answers"], own[name].as_json(rows))
    assert len(passes) < len(asked)
    assert max(passes) == 2


def body(name, rows):
    return {"winner": name, "rows": rows[["text"]].to_dict("records")}


def test_it_says_what_it_serves(client):
    assert client.get("/health") == (200, {"status": "ok", "winners": 2})
    tone, count = client.get("/winners")[1]["winners"]
    assert (tone["name"], tone["columns"], tone["labels"]) == ("tone", ["text"], ["maybe", "no", "yes"])
    assert (count["task"], count["method"], count["runs"]) == ("regression", "adapter", "with others")
    assert client.get("/v1/models") == (200, {"object": "list", "data": []})


def test_a_winner_without_others_is_said_to_run_alone(folders):
    with serving(Shelf.load([folders["tone"]])) as client:
        (tone,) = client.get("/winners")[1]["winners"]
    assert (tone["runs"], tone["reason"]) == ("alone", "no other winner here can share a pass with it")


def test_a_batch_has_no_more_rows_than_allowed_unless_one_request_does(shelf):
    batcher = Batcher(shelf, 0, 10)

    def waiting(*rows):
        for count in rows:
            batcher._queue.put_nowait((shelf.question("tone", rows_of("text-classification", count)), None))

    waiting(4, 3, 6)
    more, held = batcher._more(2)
    assert ([len(job.cells) for job, _ in more], len(held[0].cells)) == ([4, 3], 6)
    waiting(4)
    assert [len(job.cells) for job, _ in batcher._more(6)[0]] == [4]
    assert batcher._more(12) == ([], None)


def test_only_columns_that_are_read_become_a_frame(client, shelf, folders):
    """With a column for each key of any row, a request within the limits would take gigabytes."""
    rows = [{"text": f"w{row}", **{f"{row}_{key}": key for key in range(100)}} for row in range(100)]
    assert [*Rows(winner="tone", rows=rows)._frame(shelf["tone"]).columns] == ["text"]
    status, told = client.post("/predict", {"winner": "tone", "rows": rows})
    assert status == 200
    same(told["answers"], load(folders["tone"]).as_json([row["text"] for row in rows]))


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ({"winner": "ton", "rows": ["w1"]}, 404, 'did you mean "tone"'),
        ({"winner": "tone", "rows": []}, 400, '"rows" in the request is wrong: List should have at least 1'),
        ({"winner": "tone", "rows": ["w1"] * 1001}, 400, "at most 1000"),
        ({"winner": "tone", "rows": ["w1"], "top": 3}, 400, 'the request has "top"'),
        ({"winner": "tone"}, 400, '"rows" in the request is wrong: Field required'),
        ({"winner": "tone", "rows": [{"words": "w1"}]}, 422, "got no column 'text'"),
        ({"winner": "tone", "rows": ["w1", {"text": "w1"}]}, 422, "must all be objects"),
        ({"winner": "tone", "rows": ["w1", None]}, 422, 'row 2 has an empty "text"'),
        ({"winner": "tone", "rows": [["w1"]]}, 422, "row 1"),
        (["w1"], 400, "should be an object"),
    ],
)
def test_what_cannot_be_answered_is_told_in_json(client, content, status, words):
    assert words in client.fails("/predict", content, status)


def test_what_is_no_request_is_told_in_json(client):
    asked = {"content_type": "application/json"}
    assert client.send("POST", "/predict", b"{rows", **asked)[1]["error"]["message"].startswith(
        "a request must be JSON"
    )
    assert client.send("POST", "/predict", b"\xff\xfe", **asked)[0] == 400
    assert client.send("GET", "/nowhere")[0] == 404
    assert client.send("GET", "/predict")[0] == 405
    large = b'{"winner": "tone", "rows": ["' + b"w" * guard.LARGEST + b'"]}'
    status, told = client.send("POST", "/predict", large, **asked)
    assert (status, "send fewer rows" in told["error"]["message"]) == (413, True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "attacker.example"}, 403),
        ({"host": "127.0.0.1.attacker.example:8008"}, 403),
        ({"host": "["}, 403),
        ({"host": "10.0.0.1"}, 403),
        ({"origin": "http://attacker.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"host": "localhost:1", "origin": "http://127.0.0.1:1"}, 200),
        ({"host": "[::1]:80"}, 200),
    ],
)
def test_a_page_of_another_host_cannot_ask(client, headers, status):
    given = {"content_type": "application/json", **headers}
    content = json.dumps({"winner": "tone", "rows": ["w1"]}).encode()
    assert client.send("POST", "/predict", content, **given)[0] == status


def test_a_winner_that_writes_no_texts_says_so(client):
    assert "does not write texts" in client.fails("/v1/completions", {"model": "tone", "prompt": "w1"}, 422)


def test_too_much_at_once_is_refused_and_asked_again(shelf):
    """With room for one row at a time, of 40 clients some are sent away, and none gets a wrong answer."""
    asked = [body("tone", rows_of("text-classification", 1, skip=place)) for place in range(40)]
    with serving(shelf, most=1) as client, ThreadPoolExecutor(len(asked)) as threads:
        found = [*threads.map(lambda content: client.post("/predict", content), asked)]
        assert {status for status, _ in found} == {200, 503}
        assert client.get("/health")[0] == 200


def test_a_model_whose_code_would_end_the_process_ends_neither_the_server_nor_other_requests(shelf, monkeypatch):
    content = body("tone", rows_of("text-classification", 1))
    with serving(shelf) as client:
        with monkeypatch.context() as patched:
            patched.setattr(shelf["tone"].module, "forward", lambda *args, **kwargs: sys.exit(3))
            assert "SystemExit: 3" in client.fails("/predict", content, 500)
        assert client.post("/predict", content)[0] == 200


def test_an_image_is_given_in_base64_and_never_as_a_path(tmp_path):
    from PIL import Image

    from autopeft.common.exceptions import UserInputError
    from autopeft.shelf.asked import _bytes

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    coded = base64.b64encode(content).decode()
    assert _bytes(coded, 1, "image") == _bytes(f"data:image/png;base64,{coded}", 1, "image") == content
    for path in (str(tmp_path / "a.png"), f"file://{tmp_path}/a.png", "../a.png"):
        with pytest.raises(UserInputError, match="image in base64"):
            _bytes(path, 1, "image")


def test_the_command_serves_until_ctrl_c(folders):
    command = [sys.executable, "-m", "autopeft", "serve", *map(str, folders.values()), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        told = process.stdout.readline()
        found = re.fullmatch(r"Serving 2 winners: http://127\.0\.0\.1:(\d+)\n", told)
        assert found, told + process.stderr.read()
        from tests.shelf.served import Client

        assert client_until_up(Client(int(found[1]))) == {"status": "ok", "winners": 2}
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def client_until_up(client):
    """The socket listens before the server runs, so a request waits for it."""
    return client.get("/health")[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "add --open-to-network"),
        (["--host", "nowhere.invalid"], "must be an address of this machine"),
    ],
)
def test_the_command_listens_to_this_machine_alone_unless_it_is_told_otherwise(folders, options, words):
    done = autopeft_here("serve", folders["tone"], *options, cwd=folders["tone"].parent)
    assert done.returncode == 2
    assert words in done.stderr
