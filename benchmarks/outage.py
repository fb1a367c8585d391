"""A study whose MLflow server is killed in the middle and brought back: is every trial there, exactly once?

    python benchmarks/outage.py studies/quickstart.toml --seconds 60

Starts `mlflow server` on loopback, runs the study in a process of its own against it, kills the server once the first
trial has ended, starts it again after so many seconds, waits for the study, and compares MLflow's runs with the study's
own records.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mlflow import MlflowClient

from autopeft.study.file import StudySpec
from autopeft.tracking import Tracker, serving


def trials(uri: str, name: str) -> list:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    found = client.search_runs([experiment.experiment_id], max_results=1000) if experiment else []
    return [run for run in found if "trial" in run.data.tags]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    name = StudySpec.from_file(arguments.study).name
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        Tracker.connect(None, place, "other").outbox.close(0)  # the server's store
        with serving(None, place, "other", 0) as (address, _):
            uri = address.split("/#")[0]
            study = place / "study.toml"
            study.write_text(f'{arguments.study.read_text()}\n[tracking]\nuri = "{uri}"\n')
            command = [sys.executable, "-m", "autopeft", "run", str(study), "--json"]
            process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True)
            while not any(run.data.tags["state"] != "RUNNING" for run in trials(uri, name)):
                time.sleep(1)
                if process.poll() is not None:
                    sys.exit("the study ended before the server was killed")
            before = len(trials(uri, name))
        print(f"server killed with {before} trials in it", flush=True)
        time.sleep(arguments.seconds)
        running = process.poll() is None
        with serving(None, place, "other", int(uri.rsplit(":", 1)[1])):
            print(
                f"server back after {arguments.seconds:g} s; the study {'runs' if running else 'has ended'}", flush=True
            )
            output = process.communicate()[0]
            if process.returncode:
                sys.exit(f"the study ended with exit code {process.returncode}")
            records = json.loads(output)["records"]
            subprocess.run(
                [*command[:3], "sync", str(study)], cwd=place, check=True
            )  # what came too late for the study
            found = Counter(int(run.data.tags["trial"]) for run in trials(uri, name))
            left = [run.info.run_name for run in trials(uri, name) if run.info.status == "RUNNING"]
    expected = Counter(record["number"] for record in records)
    print(f"{name}: {len(expected)} trials in the study, {sum(found.values())} in MLflow, {left or 'none'} RUNNING")
    sys.exit(0 if found == expected and not left else "MLflow's trials are not the study's")


if __name__ == "__main__":
    main()
