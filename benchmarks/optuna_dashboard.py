"""Does optuna-dashboard show the trials that a study's store holds?

It serves the store from an environment of its own, made with --venv, and its answers are compared with Optuna's.

    python benchmarks/optuna_dashboard.py outputs/quickstart --venv /tmp/dashboard
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import time
import urllib.request
import venv
from pathlib import Path

import optuna

from autopeft.study.database import Entry
from autopeft.study.folder import JOURNAL
from autopeft.study.storage import open_study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="a study's output folder")
    parser.add_argument("--venv", type=Path, required=True, help="where optuna-dashboard is, or is to be installed")
    arguments = parser.parse_args()
    program = arguments.venv / "bin" / "optuna-dashboard"
    if not program.exists():
        venv.create(arguments.venv, with_pip=True)
        wanted = ["optuna-dashboard", "psycopg[binary]", f"optuna=={optuna.__version__}"]
        subprocess.run([arguments.venv / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted], check=True)
    entry, study = Entry.of(arguments.output), open_study(arguments.output)
    store = entry.url if entry else (arguments.output / JOURNAL).absolute()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([program, store, "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        every = ask(port, "studies")["study_summaries"]
        (shown,) = (one for one in every if one["study_name"] == study.study_name)
        trials = ask(port, f"studies/{shown['study_id']}?after=0")["trials"]
    finally:
        server.terminate()
        server.wait()
    served = [
        (
            t["number"],
            t["state"].upper(),
            [i["value"] for i in t["intermediate_values"]],
            len(t["params"]),
            any(value > 0 for value in t["constraints"]),
        )
        for t in trials
    ]
    held = [
        (
            t.number,
            t.state.name,
            [v for _, v in sorted(t.intermediate_values.items())],
            len(t.params),
            any(value > 0 for value in t.constraints.values()),
        )
        for t in study.trials
    ]
    assert served == held, (served, held)
    print(f"{shown['study_name']}: {len(served)} trials, as the store has them, on Optuna {optuna.__version__}")


def ask(port: int, what: str) -> dict:
    """What the dashboard's API answers, once it is up."""
    for _ in range(120):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{what}", timeout=30) as answer:
                return json.load(answer)
        except OSError:  # not up yet
            time.sleep(0.5)
    raise TimeoutError("optuna-dashboard did not answer within a minute")


if __name__ == "__main__":
    main()
