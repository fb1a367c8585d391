"""A winner as MLflow serves it: `mlflow models serve` answers over HTTP what the winner itself predicts."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pandas as pd
import pytest
from autopeft_lora import Lora

from autopeft.models.attach import attach
from autopeft.models.load import load_base
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.tasks.registry import find_task
from autopeft.winner import mlflow_model
from autopeft.winner import winner as artifact

LABELS = ("maybe", "no", "yes")


@pytest.fixture
def winner(tiny_model, tmp_path):
    task = find_task("text-classification")
    base = load_base(tiny_model, task, seed=0, config_overrides=task.config(LABELS))
    params = Lora().search_space(base.spec).defaults()
    card = artifact.Card(str(tiny_model), task.kind, LABELS, 64, "lora", params, "autopeft", 0)
    artifact.save(attach(base, Lora(), params), Lora(), RowTokenizer(base.processor, 64), card, tmp_path / "winner")
    return tmp_path / "winner"


def ask(port: int, rows: pd.DataFrame, seconds: float = 120) -> list[dict]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps({"dataframe_split": rows.to_dict(orient="split", index=False)}).encode(),
        {"Content-Type": "application/json"},
    )
    end = time.monotonic() + seconds
    while True:
        try:
            return json.load(urllib.request.urlopen(request))["predictions"]
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.exhaustive
def test_the_served_winner_answers_what_the_winner_predicts(winner, tmp_path):
    rows = pd.DataFrame({"text": ["w1 w2 w30", "w7", "w20 w21 w22 w3"]})
    mlflow_model.save(winner, tmp_path / "served", rows)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", tmp_path / "served"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    server = subprocess.Popen(command, env={**os.environ, "PATH": path}, start_new_session=True)
    try:
        answers = ask(port, rows)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    loaded = artifact.load(winner)
    assert [answer["label"] for answer in answers] == loaded.predict(rows)
    assert [answer["probability"] for answer in answers] == pytest.approx(loaded.predict_proba(rows).max(axis=1))


def test_the_saved_model_holds_no_pickle_and_says_what_it_takes(winner, tmp_path):
    mlflow_model.save(winner, tmp_path / "served", pd.DataFrame({"text": ["w1", "w2", "w3"], "label": "no"}))
    kinds = {path.suffix for path in (tmp_path / "served").rglob("*") if path.is_file()}
    assert not kinds & {".pkl", ".bin", ".pt", ".pickle"}
    example = json.loads((tmp_path / "served" / "input_example.json").read_text())
    assert (example["columns"], len(example["data"])) == (["text"], 2)
    needed = (tmp_path / "served" / "requirements.txt").read_text()
    assert {line.partition("==")[0] for line in needed.split()} >= {"autopeft", "torch", "transformers", "peft"}
